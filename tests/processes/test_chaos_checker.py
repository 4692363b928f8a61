"""The checker of the chaos sees each kind of fault, and nothing where there is none."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from django_jobs.states import Reason, State
from tests.processes.chaos import checker, tasks
from tests.processes.chaos.audit import ProducedLine, RunLine
from tests.processes.chaos.checker import Ledger
from tests.processes.chaos.hosts import Death, Killing
from tests.processes.chaos.journal import Journal, Strike
from tests.processes.chaos.recovery import hurt_neighbours, recoveries
from tests.processes.chaos.rows import Row, Rows


def produced(event: str, key: str = "a", **more: Any) -> ProducedLine:
    values = {"kind": "one", "due": 1.0, "time": 1.0, "error": "-", **more}
    return ProducedLine(event=event, key=key, **values)


def run(event: str, key: str = "a", **more: Any) -> RunLine:
    values = {
        "lease": 1,
        "attempt": 1,
        "host": "worker1",
        "pid": 7,
        "time": 2.0 if event == "start" else 3.0,
        **more,
    }
    return RunLine(event=event, key=key, **values)


def row(key: str = "a", **more: Any) -> Row:
    values = {
        "table": "Result",
        "id": f"id of {key}",
        "name": tasks.plain.name,
        "state": State.SUCCESSFUL,
        "reason": "",
        "attempt": 1,
        "lease": 1,
        "crashes": 0,
        "max_attempts": 3,
        "returned_by": 1,
        "finished_at": None,
        **more,
    }
    return Row(key=key, **values)


def ledger(
    *lines: ProducedLine | RunLine,
    rows: list[Row] | None = None,
    attempts: dict[tuple[str, int], int] | None = None,
    effects: list[str] | None = None,
    orders: set[str] | None = None,
) -> Ledger:
    return Ledger(
        [line for line in lines if isinstance(line, ProducedLine)],
        [line for line in lines if isinstance(line, RunLine)],
        Rows(
            [row()] if rows is None else rows,
            Counter(attempts or {}),
            Counter(),
            Counter(effects or []),
            orders or set(),
        ),
    )


ENQUEUED = produced("try"), produced("ack")
RUN = run("start"), run("end")
ATOMIC = row(name=tasks.atomic.name)
UNFINISHED = row(table="Task", state=State.READY)
DEAD = {"table": "DeadLetter", "state": State.FAILED}


def found(one: Ledger) -> dict[str, list[str]]:
    return {check: keys for check, keys in checker.violations(one).items() if keys}


def test_nothing_is_found_where_all_is_well() -> None:
    one = ledger(*ENQUEUED, *RUN)
    assert found(one) == {}
    assert checker.numbers(one) == {
        "attempted": 1,
        "acked": 1,
        "recovered": 0,
        "duplicated": 0,
        "finished": 1,
        "dead_letters": 0,
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
        ("completed_twice", ledger(*ENQUEUED, *RUN, attempts={("id of a", 1): 1})),
        ("completed_twice", ledger(*ENQUEUED, *RUN, attempts={("id of a", 2): 2})),
        ("late_outcomes", ledger(*ENQUEUED, *RUN, rows=[row(lease=2)])),
        ("over_budget", ledger(*ENQUEUED, *RUN, rows=[row(attempt=7)])),
        ("over_budget", ledger(*ENQUEUED, *RUN, rows=[row(crashes=4)])),
        ("wrong_ends", ledger(*ENQUEUED, *RUN, rows=[row(state=State.EXPIRED)])),
        ("wrong_ends", ledger(*ENQUEUED, *RUN, rows=[row(name=tasks.doomed.name)])),
        (
            "wrong_ends",
            ledger(*ENQUEUED, *RUN, rows=[row(reason=Reason.CORRUPT, **DEAD)]),
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
    twice = *ENQUEUED, *RUN, run("start", lease=2), run("end", lease=2)
    assert checker.numbers(ledger(*twice))["duplicated"] == 1
    atomic = ledger(*twice, rows=[ATOMIC], effects=["a"])
    assert checker.numbers(atomic)["duplicated"] == 0
    assert found(atomic) == {}


def test_recovery_is_counted_from_the_death_without_outages() -> None:
    again = run("start", lease=2, time=9.0), run("end", lease=2, time=9.5)
    one = ledger(*ENQUEUED, run("start"), *again)
    outage = Strike("away", True, 4.0, 6.0, reached=6.0)
    journal = Journal(0.0, [outage])
    deaths = [Death("worker1", 7, 1.0), Death("worker1", 7, 3.0)]
    [recovery] = recoveries(one, deaths, journal, epoch=0.0)
    assert (recovery.died, recovery.again, recovery.seconds) == (3.0, 9.0, 4.0)
    assert list(recoveries(one, deaths[:1], journal, epoch=0.0)) == []


def test_a_neighbour_that_came_to_no_end_is_found_when_all_else_was_calm() -> None:
    one = ledger(*ENQUEUED, run("start", pid=8))
    killing = Killing("worker1", [8], 2.5)
    strike = Strike("kill_child", False, 2.4, 2.6)
    assert list(hurt_neighbours(one, [killing], Journal(0.0, [strike])))
    other = Strike("reset", False, 3.0, 3.0)
    assert not list(hurt_neighbours(one, [killing], Journal(0.0, [strike, other])))
    ended = ledger(*ENQUEUED, run("start", pid=8), run("end", pid=8))
    assert not list(hurt_neighbours(ended, [killing], Journal(0.0, [strike])))
