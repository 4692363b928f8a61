"""The checker of the chaos sees each kind of fault, and nothing where there is none."""

from __future__ import annotations

from dataclasses import replace

import pytest

from django_jobs.states import Reason, State
from tests.processes.chaos import checker, tasks
from tests.processes.chaos.ledger import Ledger
from tests.processes.chaos.rows import Answer
from tests.processes.doctored import (
    AGAIN,
    ATOMIC,
    CRASHED,
    CRASHES,
    DEAD,
    DOOMED,
    ENQUEUED,
    FAILED,
    FLEETING,
    GONE,
    LEASE_LOST,
    RAISED,
    REVOKED,
    RUN,
    SECOND,
    SPENT,
    UNFINISHED,
    UNKNOWN,
    failure,
    found,
    hit,
    journal,
    ledger,
    produced,
    record,
    row,
    run,
)

REQUESTED = produced("revoked", kind="requested", time=2.5)


def test_nothing_is_found_where_all_is_well() -> None:
    one = ledger(*ENQUEUED, *RUN)
    assert found(one) == {}
    assert checker.numbers(one) == {
        "attempted": 1,
        "acked": 1,
        "recovered": 0,
        "duplicated": 0,
        "duplicates_allowed": 0,
        "finished": 1,
        "dead_letters": 0,
        "revoked": 0,
        "requeued": 0,
        "pruned": 0,
        "runs": 1,
    }


@pytest.mark.parametrize(
    ("check", "one"),
    [
        ("lost", ledger(*ENQUEUED, rows=[])),
        ("lost", ledger(*ENQUEUED, rows=[UNFINISHED])),
        ("unexpected", ledger(*RUN)),
        ("unexpected", ledger(*ENQUEUED, *RUN, run("start", "b"))),
        ("unexpected", ledger(produced("try", kind="undone"), *RUN)),
        ("unexpected", ledger(*ENQUEUED, *RUN, run("start", "a+"))),
        ("doubled", ledger(*ENQUEUED, *RUN, rows=[row(), row(id="2")])),
        ("doubled", ledger(*ENQUEUED, *RUN, rows=[row(), UNFINISHED])),
        (
            "atomic_duplicated",
            ledger(*ENQUEUED, *RUN, rows=[ATOMIC], effects=["a", "a"]),
        ),
        ("atomic_torn", ledger(*ENQUEUED, *RUN, rows=[ATOMIC])),
        (
            "atomic_torn",
            ledger(
                *(*ENQUEUED, *RUN),
                rows=[row(name=tasks.atomic.name, **DEAD)],
                effects=["a"],
            ),
        ),
        ("torn_transactions", ledger(*ENQUEUED, *RUN, orders={"a"})),
        (
            "torn_transactions",
            ledger(produced("try", kind="ordered"), produced("ack"), *RUN),
        ),
        ("never_run", ledger(*ENQUEUED)),
        ("run_twice_in_a_lease", ledger(*ENQUEUED, *RUN, run("start", pid=8))),
        (
            "completed_twice",
            ledger(*ENQUEUED, *RUN, records=[failure()]),
        ),
        (
            "completed_twice",
            ledger(*ENQUEUED, *RUN, records=[failure(2), failure(2)]),
        ),
        (
            "late_outcomes",
            ledger(*ENQUEUED, *RUN, rows=[row(lease=2, returned=Answer("a", 1))]),
        ),
        ("wrong_answers", ledger(*ENQUEUED, *RUN, rows=[row(returned=None)])),
        (
            "wrong_answers",
            ledger(*ENQUEUED, *RUN, rows=[row(returned=Answer("b", 1))]),
        ),
        ("wrong_numbers", ledger(*ENQUEUED, *RUN, rows=[row(attempt=6)])),
        ("wrong_numbers", ledger(*ENQUEUED, *RUN, rows=[row(attempt=0)])),
        ("wrong_numbers", ledger(*ENQUEUED, *RUN, rows=[row(attempt=4, crashes=3)])),
        ("wrong_numbers", ledger(*ENQUEUED, *RUN, rows=[row(attempt=1, crashes=2)])),
        (
            "wrong_numbers",
            ledger(*ENQUEUED, *RUN, rows=[row(name=tasks.flaky.name)]),
        ),
        (
            "wrong_numbers",
            ledger(*ENQUEUED, *RUN, rows=[row(**CRASHED | {"crashes": 0})]),
        ),
        (
            "wrong_numbers",
            ledger(
                *(*ENQUEUED, run("start"), run("raise")),
                rows=[row(name=tasks.doomed.name, **SPENT | {"attempt": 1})],
            ),
        ),
        ("wrong_numbers", ledger(*ENQUEUED, rows=[row(**UNKNOWN)])),
        ("wrong_ends", ledger(*ENQUEUED, *RUN, rows=[row(**SPENT)])),
        (
            "wrong_ends",
            ledger(*ENQUEUED, *RUN, rows=[row(**DEAD, reason=Reason.GAVE_UP)]),
        ),
        ("wrong_ends", ledger(*ENQUEUED, *RUN, rows=[row(state=State.EXPIRED)])),
        ("wrong_ends", ledger(*ENQUEUED, *RUN, rows=[row(name=tasks.doomed.name)])),
        ("wrong_ends", ledger(*ENQUEUED, rows=[REVOKED])),
        (
            "wrong_ends",
            ledger(*ENQUEUED, *RUN, rows=[row(**DEAD, reason=Reason.CORRUPT)]),
        ),
        ("wrong_ends", ledger(*ENQUEUED, *RUN, rows=[row(name=tasks.FORGOTTEN)])),
        ("wrong_places", ledger(*ENQUEUED, *RUN, rows=[row(table="DeadLetter")])),
        (
            "wrong_places",
            ledger(*ENQUEUED, *RUN, rows=[row(state=State.READY)]),
        ),
        ("never_started", ledger(*ENQUEUED, rows=[DOOMED])),
        ("never_started", ledger(*ENQUEUED, *RUN, rows=[row(**UNKNOWN)])),
        (
            "revoked_in_vain",
            ledger(*ENQUEUED, *RUN, produced("revoked", kind="revoked")),
        ),
        (
            "revoked_in_vain",
            ledger(
                *ENQUEUED,
                *(produced("revoking"), produced("revoked", kind="revoked"), *RUN),
                rows=[REVOKED],
            ),
        ),
        (
            "revoked_in_vain",
            ledger(*ENQUEUED, *RUN, produced("revoked", kind=tasks.MISSING)),
        ),
        (
            "requeued_in_vain",
            ledger(
                *(*ENQUEUED, *RAISED),
                *(produced("requeueing", time=5.0), produced("requeued", time=5.1)),
                rows=[DOOMED],
            ),
        ),
        (
            "requeued_in_vain",  # run again once, and put back twice
            ledger(
                *(*ENQUEUED, *RAISED),
                *(produced("requeueing", time=4.1), produced("requeued", time=4.2)),
                *(produced("requeueing", time=5.3), produced("requeued", time=5.4)),
                rows=[DOOMED],
            ),
        ),
        (
            "requeued_in_vain",  # the first time
            ledger(
                *(*ENQUEUED, *RAISED),
                *(produced("requeueing", time=4.1), produced("requeued", time=4.2)),
                *(produced("requeueing", time=4.3), produced("requeued", time=4.4)),
                rows=[DOOMED],
            ),
        ),
        (
            "run_when_it_was_to_stop",
            ledger(
                *(*ENQUEUED, *RUN, *AGAIN),
                *(produced("revoking", time=2.4), REQUESTED),
                rows=[SECOND],
                records=LEASE_LOST,
                journal=journal(hit()),
            ),
        ),
        (
            "run_when_it_was_to_stop",
            ledger(
                *(*ENQUEUED, run("start", time=3.0), run("end", time=3.1), *AGAIN),
                *(produced("revoking", time=2.4), REQUESTED),
                rows=[SECOND],
            ),
        ),
        ("lost", ledger(*FLEETING, *RUN, rows=[])),
        ("lost", ledger(*FLEETING, *RUN, rows=[], journal=journal(hit()))),
        ("miscounted", ledger(*FLEETING, *RUN, pruned=[GONE])),
        ("miscounted", ledger(*FLEETING, *RUN, rows=[], pruned=[GONE, GONE])),
        (
            "miscounted",
            ledger(*FLEETING, *RUN, rows=[], pruned=[GONE], said_pruned=2),
        ),
        ("wrongly_pruned", ledger(*ENQUEUED, *RUN, rows=[], pruned=[GONE])),
        (
            "wrongly_pruned",
            ledger(*FLEETING, *RUN, rows=[], pruned=[replace(GONE, was_due=False)]),
        ),
        ("never_run", ledger(*FLEETING, rows=[], pruned=[GONE])),
        ("unexcused_starts", ledger(*ENQUEUED, *RUN, *AGAIN, rows=[SECOND])),
        (
            "unexcused_starts",  # two leases overlap
            ledger(
                *(*ENQUEUED, run("start"), run("start", lease=2, time=2.5)),
                *(run("end"), run("end", lease=2)),
                rows=[SECOND],
            ),
        ),
        ("started_when_done", ledger(*ENQUEUED, *RUN, *AGAIN)),
        (
            "late",
            ledger(*ENQUEUED, run("start", time=1001.0), run("end", time=1002.0)),
        ),
        ("early", ledger(produced("try", due=2.5), produced("ack"), *RUN)),
    ],
)
def test_each_fault_is_found(check: str, one: Ledger) -> None:
    assert check in found(one)


def test_what_was_not_acknowledged_may_be_there_or_not() -> None:
    failed = produced("try"), produced("fail")
    assert found(ledger(*failed, rows=[])) == {}
    there = ledger(*failed, *RUN)
    assert found(there) == {}
    assert checker.numbers(there)["recovered"] == 1


def test_what_a_successful_task_enqueues_counts_as_acknowledged() -> None:
    parent = row(name=tasks.outbox.name)
    assert found(ledger(*ENQUEUED, *RUN, rows=[parent], effects=["a"])) == {
        "lost": ["a+"]
    }


def test_an_end_more_than_one_is_a_duplicate_unless_it_is_atomic() -> None:
    twice = *ENQUEUED, *RUN, *AGAIN
    assert checker.numbers(ledger(*twice))["duplicated"] == 1
    pruned = ledger(*FLEETING, *RUN, *AGAIN, rows=[], pruned=[GONE])
    assert checker.numbers(pruned)["duplicated"] == 1
    second = replace(SECOND, name=tasks.atomic.name)
    atomic = ledger(
        *twice, rows=[second], records=LEASE_LOST, effects=["a"], journal=journal(hit())
    )
    assert checker.numbers(atomic)["duplicated"] == 0
    assert found(atomic) == {}


@pytest.mark.parametrize(
    "one",
    [
        ledger(*ENQUEUED, *RAISED, rows=[DOOMED], records=FAILED),
        ledger(*ENQUEUED, produced("revoking"), rows=[REVOKED]),
        ledger(
            *(*ENQUEUED, run("start"), produced("revoking")),
            rows=[replace(REVOKED, attempt=3, crashes=3)],
            records=CRASHES,
        ),
        ledger(*ENQUEUED, rows=[row(**UNKNOWN, attempt=0)]),
        ledger(
            *ENQUEUED,
            rows=[row(**UNKNOWN, attempt=1, crashes=1)],
            records=[record()],
        ),
        ledger(*FLEETING, *RUN, rows=[], pruned=[GONE], said_pruned=1),
        ledger(*FLEETING, *RUN, rows=[], pruned=[GONE], said_pruned=0),
        ledger(
            *(FLEETING[0], produced("ack", time=2.5), *RUN),
            rows=[],
            pruned=[GONE, GONE],
        ),
        ledger(
            *(*FLEETING, *RUN, produced("revoked", kind=tasks.MISSING)),
            rows=[],
            pruned=[GONE],
        ),
        ledger(
            *(*ENQUEUED, *RUN),
            rows=[row(**CRASHED)],
            records=CRASHES,
        ),
        ledger(
            *(*ENQUEUED, *RAISED),
            *(produced("requeueing", by="b", time=5.2), produced("try", "b", by="b")),
            *(produced("requeueing", time=4.1), produced("requeued", time=4.2)),
            rows=[DOOMED],
            records=FAILED,
        ),
        ledger(*ENQUEUED, *RUN, produced("revoking", time=2.4), REQUESTED),
        ledger(
            *(*ENQUEUED, run("start", time=3.0), run("end", time=3.5)),
            *(produced("revoking", time=2.4), REQUESTED),
        ),
        ledger(*ENQUEUED, run("start", time=3.9), run("end", time=9.0)),
    ],
    ids=[
        "doomed",
        "revoked",
        "crashed too",
        "unknown",
        "unknown and claimed",
        "pruned",
        "told not",
        "enqueued again",
        "pruned before it was revoked",
        "crashes",
        "somebody else was faster",
        "asked to stop, and done",
        "claimed when it was asked to stop",
        "in time",
    ],
)
def test_ends_that_are_right(one: Ledger) -> None:
    assert found(one) == {}
