"""The checker of the chaos compares what ran with what is recorded of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from django_jobs.states import Reason, Verdict
from tests.processes.chaos import tasks
from tests.processes.chaos.accounts import TOO_LONG
from tests.processes.chaos.hosts import Death
from tests.processes.chaos.ledger import Ledger
from tests.processes.doctored import (
    AGAIN,
    ATOMIC,
    CRASHED,
    CRASHES,
    DOOMED,
    ENQUEUED,
    FAILED,
    LEASE_LOST,
    RAISED,
    RUN,
    SECOND,
    failure,
    found,
    hit,
    journal,
    ledger,
    produced,
    row,
    run,
)

DEADLY = produced("try", task=tasks.deadly.name), produced("ack")
#: It kills its process three times.
KILLS = [
    run("start", lease=number, attempt=number, pid=number, time=2.0 * number)
    for number in (1, 2, 3)
]
KILLED = row(name=tasks.deadly.name, **CRASHED | {"lease": 3})
DEATH = Death("worker1", 7, "70", 2.5)
LIMITED = row(lease=2, attempt=2, name=tasks.sleep.name)

OVER = [failure(error=TOO_LONG)]


@pytest.mark.parametrize(
    ("check", "one"),
    [
        # Its budgets are refunded, and nothing is said of it.
        (
            "unrecorded_runs",
            ledger(
                *ENQUEUED,
                *(
                    run(event, lease=lease, attempt=1 + lease % 2, time=float(lease))
                    for lease in range(2, 52)
                    for event in ("start", "raise")
                ),
                rows=[replace(DOOMED, lease=51)],
                records=FAILED,
            ),
        ),
        ("unrecorded_runs", ledger(*ENQUEUED, *RUN, *AGAIN, rows=[SECOND])),
        (
            "unrecorded_runs",
            ledger(*DEADLY, *KILLS, rows=[KILLED], records=CRASHES[1:]),
        ),
        (
            "miscounted_attempts",
            ledger(*ENQUEUED, *RUN, *AGAIN, rows=[SECOND], records=[]),
        ),
        (
            "miscounted_attempts",
            ledger(
                *(*ENQUEUED, *RUN, *AGAIN),
                rows=[replace(SECOND, crashes=0)],
                records=LEASE_LOST,
            ),
        ),
        (
            "miscounted_attempts",
            ledger(*DEADLY, *KILLS, rows=[KILLED], records=CRASHES[1:]),
        ),
        (
            "miscounted_attempts",
            ledger(*ENQUEUED, *RAISED, rows=[DOOMED], records=[*FAILED, failure(3)]),
        ),
        (
            "uncounted_deaths",  # a failure instead of a crash
            ledger(
                *(*ENQUEUED, run("start"), *AGAIN),
                rows=[replace(SECOND, crashes=0)],
                records=[failure()],
                deaths=[DEATH],
            ),
        ),
        ("uncounted_deaths", ledger(*DEADLY, *KILLS, rows=[KILLED])),
        ("wrong_ends", ledger(*DEADLY, *RUN, rows=[row(name=tasks.deadly.name)])),
        (
            "wrong_numbers",
            ledger(*DEADLY, *KILLS, rows=[replace(KILLED, attempt=4)]),
        ),
        (
            "false_failures",  # the second of the two never raised
            ledger(*ENQUEUED, *RAISED[:3], rows=[DOOMED], records=FAILED),
        ),
        (
            "false_failures",  # it raised after it was said to have failed
            ledger(
                *(*ENQUEUED, *RAISED),
                rows=[DOOMED],
                records=[FAILED[0], replace(FAILED[1], finished=4.4)],
            ),
        ),
        (
            "false_failures",
            ledger(
                *(*ENQUEUED, *RUN, *AGAIN), rows=[LIMITED], records=[failure(error="")]
            ),
        ),
        (
            "false_failures",  # nothing kept it from its first line
            ledger(*ENQUEUED, *AGAIN, rows=[LIMITED], records=OVER),
        ),
        (
            "false_failures",
            ledger(
                *(*ENQUEUED, *AGAIN),
                rows=[replace(ATOMIC, lease=2, attempt=2)],
                records=[failure(error="ValueError")],
            ),
        ),
    ],
)
def test_what_is_wrong_with_the_books_is_found(check: str, one: Ledger) -> None:
    assert check in found(one)


@pytest.mark.parametrize(
    "one",
    [
        ledger(*DEADLY, *KILLS, rows=[KILLED], records=CRASHES),
        ledger(
            *(*DEADLY, *KILLS),
            rows=[KILLED],
            records=[*CRASHES[:2], replace(CRASHES[2], verdict=Verdict.FAILED)],
        ),
        ledger(
            *(*ENQUEUED, run("start"), *AGAIN),
            rows=[SECOND],
            records=LEASE_LOST,
            deaths=[DEATH],
        ),
        ledger(  # it came to its end, whoever killed its process then
            *(*ENQUEUED, *RUN), rows=[row()], deaths=[replace(DEATH, time=3.1)]
        ),
        ledger(  # at its limit it was killed before us
            *(*ENQUEUED, run("start"), *AGAIN),
            rows=[LIMITED],
            records=OVER,
            deaths=[replace(DEATH, time=7.1)],
        ),
        ledger(  # its process was kept from its first line
            *(*ENQUEUED, *AGAIN),
            rows=[LIMITED],
            records=OVER,
            journal=journal(hit()),
        ),
        ledger(  # its transaction never began
            *(*ENQUEUED, *AGAIN),
            rows=[replace(SECOND, name=ATOMIC.name, crashes=0)],
            records=[failure(error="django.db.utils.OperationalError")],
            effects=["a"],
        ),
        ledger(  # put back to work, and failed again
            *(*ENQUEUED, *RAISED),
            *(run("start", lease=3, time=8.0), run("raise", lease=3, time=8.1)),
            *(
                run("start", lease=4, attempt=2, time=8.5),
                run("raise", lease=4, attempt=2, time=8.6),
            ),
            rows=[replace(DOOMED, lease=4)],
            records=[
                *(replace(each, requeued=7.0) for each in FAILED),
                *(replace(each, finished=9.0) for each in FAILED),
            ],
        ),
    ],
    ids=[
        "deadly",
        "its last crash",
        "crashed",
        "ended",
        "at its limit",
        "late start",
        "no transaction",
        "requeued",
    ],
)
def test_books_that_balance(one: Ledger) -> None:
    assert found(one) == {}


def test_a_dead_letter_for_crashes_is_only_one_for_crashes() -> None:
    spent = replace(KILLED, reason=Reason.ATTEMPTS)
    assert "wrong_ends" in found(ledger(*DEADLY, *KILLS, rows=[spent], records=CRASHES))
