"""The checker knows how long a task may wait for a start that is due."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from django_jobs.states import Verdict
from tests.processes.chaos import tasks
from tests.processes.chaos.hosts import Death
from tests.processes.chaos.journal import Harm
from tests.processes.chaos.lateness import FIRST_CRASH, HELD, RETRY, TURN
from tests.processes.chaos.ledger import Ledger
from tests.processes.doctored import (
    ENQUEUED,
    FAILED,
    LEASE_LOST,
    RAISED,
    SECOND,
    SPENT,
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

#: Due at 1.0.
WAIT = TURN + 0.1


def first(waits: float, lease: int = 1, **more: Any) -> Ledger:
    begun = {"lease": lease, "attempt": lease}
    lines = run("start", time=1 + waits, **begun), run("end", time=1 + waits, **begun)
    there = row(lease=lease, attempt=lease, crashes=lease - 1)
    lost = [record(number) for number in range(1, lease)]
    return ledger(*ENQUEUED, *lines, rows=[there], records=lost, **more)


def is_late(one: Ledger) -> bool:
    return set(found(one)) == {"late"}


def test_a_task_waits_for_its_turn_and_no_longer() -> None:
    assert found(first(TURN - 0.1)) == {}
    assert is_late(first(WAIT))
    assert found(first(2 * WAIT, second=3.0)) == {}


def test_a_kill_elsewhere_is_no_reason_to_be_late() -> None:
    kill = hit("worker2", harm=Harm.VICTIMS)
    assert is_late(first(WAIT + 1, journal=journal(kill, kill, kill)))


@pytest.mark.parametrize(
    ("is_in_time", "strike"),
    [
        (True, hit("worker1", began=1.5, ended=20.0)),
        (False, hit("worker2", began=1.5, ended=20.0)),
        (False, hit("worker1", began=1.5, ended=20.0, harm=Harm.NOBODY)),
        (True, hit(is_outage=True, began=1.5, ended=20.0, reached=19.0)),
        (False, hit(is_outage=True, began=1.5, ended=1.6, reached=1.6)),
    ],
    ids=["its host", "another", "harmless", "outage", "short outage"],
)
def test_what_befell_the_host_is_no_wait(is_in_time: bool, strike: Any) -> None:
    assert (found(first(20.0, journal=journal(strike))) == {}) is is_in_time


def test_an_outage_is_one_of_all_workers() -> None:
    cut = {"is_outage": True, "began": 1.0, "ended": 11.0, "reached": 11.0}
    some, others = hit("a", "producers", **cut), hit("b", "c", **cut)
    of_some, of_all = journal(some), journal(some, others)
    for each in (of_some, of_all):
        each.workers = ["a", "b", "c"]
    assert (of_some.away(0.0, 20.0), of_all.away(0.0, 20.0)) == (0.0, 10.0)
    assert of_all.away(9.0, 20.0) == 2.0
    missed = hit(**cut, hits=0)
    missed.hits = 0
    assert journal(missed).away(0.0, 20.0) == 0.0
    aimed = hit("a", **cut, targets={"a", "b", "c"})  # one had no connection then
    both = journal(aimed)
    both.workers = ["a", "b", "c"]
    assert both.away(0.0, 20.0) == 10.0


def test_a_claim_that_came_to_nothing_holds_a_task_until_its_lease_is_over() -> None:
    assert found(first(HELD + TURN, lease=2)) == {}
    assert is_late(first(2 * HELD + TURN, lease=2))


def again(at: float, *before: Any, records: Any = LEASE_LOST, **more: Any) -> Ledger:
    second = {"lease": 2, "attempt": 2, "time": at}
    lines = *before, run("start", **second), run("end", **second)
    crashes = sum(each.verdict == Verdict.CRASHED for each in records)
    values = {"rows": [replace(SECOND, crashes=crashes)], "records": records, **more}
    return ledger(*ENQUEUED, *lines, **values)


def test_a_failure_is_repeated_after_its_pause() -> None:
    raised = run("start"), run("raise")
    soon = {"records": [failure()]}
    assert found(again(3 + RETRY + TURN - 0.1, *raised, **soon)) == {}
    assert is_late(again(3 + RETRY + TURN + 0.1, *raised, **soon))
    assert is_late(again(500.0, *raised, **soon))


def test_a_killed_child_is_made_up_for_after_the_pause_of_a_crash() -> None:
    died = {"deaths": [Death("worker1", 7, "70", 2.1)]}
    assert found(again(2 + FIRST_CRASH + TURN - 0.1, run("start"), **died)) == {}
    assert is_late(again(12.5, run("start"), **died))
    worker = {"deaths": [Death("worker1", 1, "10", 2.1, is_whole=True)]}
    assert found(again(12.5, run("start"), **worker)) == {}
    assert is_late(again(2.1 + HELD + FIRST_CRASH + TURN, run("start"), **worker))


def test_what_is_put_back_to_work_is_due_at_once() -> None:
    asked = produced("requeueing", time=20.0), produced("requeued", time=20.1)

    def requeued(at: float, *asks: Any) -> Ledger:
        history = [replace(each, requeued=20.05) for each in FAILED]
        more = {"lease": 3, "time": at}
        return ledger(
            *(*ENQUEUED, *RAISED, *asks, run("start", **more), run("raise", **more)),
            rows=[
                row(
                    name=tasks.doomed.name,
                    **SPENT | {"attempt": 1, "lease": 3, "max_attempts": 1},
                )
            ],
            records=[*history, replace(FAILED[1], number=1, finished=at)],
        )

    assert found(requeued(23.0, *asked)) == {}
    assert is_late(requeued(23.2, *asked))
    lost = asked[0], produced("try", "b", kind="undone", time=25.0)
    assert found(requeued(27.9, *lost)) == {}
    assert is_late(requeued(28.1, *lost))
    overtaken = produced("requeueing", time=10.0), produced("undo", "c", time=10.1)
    faster = [each._replace(by="b") for each in asked]
    assert found(requeued(23.0, *overtaken, *faster)) == {}
