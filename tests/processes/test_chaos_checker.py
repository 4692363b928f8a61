"""The checker of the chaos sees each kind of fault, and nothing where there is none."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from math import inf
from typing import Any

import pytest
from django.db import OperationalError

from django_jobs.states import Reason, State
from tests.processes.chaos import checker, tasks
from tests.processes.chaos.audit import ProducedLine, RunLine
from tests.processes.chaos.hosts import Death, Killing
from tests.processes.chaos.journal import Harm, Journal, Strike
from tests.processes.chaos.ledger import Ledger
from tests.processes.chaos.recovery import figures, hurt_neighbours, recoveries
from tests.processes.chaos.report import too_little
from tests.processes.chaos.rows import Answer, Row, Rows
from tests.processes.chaos.watcher import Watcher
from tests.processes.harness import wait_for


def produced(event: str, key: str = "a", **more: Any) -> ProducedLine:
    values = {
        "kind": "one",
        "due": 1.0,
        "time": 1.0,
        "error": "-",
        "task": tasks.plain.name,
        **more,
    }
    return ProducedLine(event=event, key=key, **values)


def run(event: str, key: str = "a", **more: Any) -> RunLine:
    values = {
        "lease": 1,
        "attempt": 1,
        "host": "worker1",
        "pid": 7,
        "born": "70",
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
        "returned": Answer(key, more.get("lease", 1)),
        "finished_at": None,
        **more,
    }
    return Row(key=key, **values)


def ledger(
    *lines: ProducedLine | RunLine,
    rows: list[Row] | None = None,
    attempts: dict[tuple[str, int, datetime | None], int] | None = None,
    effects: list[str] | None = None,
    orders: set[str] | None = None,
    **more: Any,
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
        **more,
    )


ENQUEUED = produced("try"), produced("ack")
RUN = run("start"), run("end")
ATOMIC = row(name=tasks.atomic.name)
UNFINISHED = row(table="Task", state=State.READY)
DEAD = {"table": "DeadLetter", "state": State.FAILED, "returned": None}
SPENT = {**DEAD, "reason": Reason.ATTEMPTS, "attempt": 3}
CRASHED = {**DEAD, "reason": Reason.CRASHES, "attempt": 3, "crashes": 3}
DOOMED = row(name=tasks.doomed.name, **SPENT | {"attempt": 2, "max_attempts": 2})
REVOKED = row(state=State.REVOKED, attempt=0, returned=None)
UNKNOWN = {**DEAD, "name": tasks.FORGOTTEN, "reason": Reason.UNKNOWN_TASK}
FLEETING = produced("try", task=tasks.fleeting.name), produced("ack")
#: A second run; the outcome of the first one was not stored.
AGAIN = run("start", lease=2, time=9.0), run("end", lease=2, time=9.5)
SECOND = row(lease=2, attempt=2)


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
            ledger(*ENQUEUED, *RUN, attempts={("id of a", 1, None): 1}),
        ),
        (
            "completed_twice",
            ledger(*ENQUEUED, *RUN, attempts={("id of a", 2, None): 2}),
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
        ("unseen_crashes", ledger(*ENQUEUED, *RUN, rows=[row(**CRASHED)])),
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
            "requeued_in_vain",
            ledger(
                *(*ENQUEUED, run("start"), run("raise")),
                *(produced("requeueing", time=5.0), produced("requeued", time=5.1)),
                rows=[DOOMED],
            ),
        ),
        ("miscounted", ledger(*FLEETING, *RUN, rows=[])),
        ("miscounted", ledger(*ENQUEUED, *RUN, pruned=1)),
        ("lost", ledger(*FLEETING, rows=[], pruned=1)),
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
    second = row(lease=2, attempt=2, name=tasks.atomic.name)
    atomic = ledger(*twice, rows=[second], effects=["a"], journal=journal(hit()))
    assert checker.numbers(atomic)["duplicated"] == 0
    assert found(atomic) == {}


def hit(*hosts: str, **more: Any) -> Strike:
    """Return a strike from 2.5 to 2.9 that hit these hosts, or everybody."""
    values = {"fault": "reset", "is_outage": False, "began": 2.5, "ended": 2.9, **more}
    strike = Strike(**values)
    strike.hit(*hosts)
    strike.last_hit = 2.9
    return strike


def journal(*strikes: Strike) -> Journal:
    return Journal(0.0, list(strikes))


@pytest.mark.parametrize(
    ("is_excused", "strike"),
    [
        (True, hit()),
        (True, hit("worker1")),
        (False, hit("worker2")),
        (False, hit("worker1", harm=Harm.NOBODY)),
        (False, hit("worker1", harm=Harm.VICTIMS)),
        (False, Strike("reset", False, 2.5, 2.9, is_everywhere=True)),
        (False, hit("worker1", began=8.0, ended=8.5)),
    ],
    ids=["all", "its host", "another", "harmless", "a process", "no hit", "later"],
)
def test_a_second_run_is_excused_by_what_hit_the_first_one(
    is_excused: bool, strike: Strike
) -> None:
    twice = ledger(*(*ENQUEUED, *RUN, *AGAIN), rows=[SECOND], journal=journal(strike))
    assert (found(twice) == {}) is is_excused


@pytest.mark.parametrize(
    ("is_excused", "death"),
    [
        (True, Death("worker1", 7, "70", 3.5)),
        (False, Death("worker1", 7, "71", 3.5)),
        (False, Death("worker2", 7, "70", 3.5)),
        (False, Death("worker1", 7, "70", 1.5)),
        (False, Death("worker1", 7, "70", 9.5)),
    ],
    ids=["it died", "a namesake", "another host", "before it", "too late"],
)
def test_a_second_run_is_excused_by_the_death_of_the_first_one(
    is_excused: bool, death: Death
) -> None:
    twice = ledger(*ENQUEUED, *RUN, *AGAIN, rows=[SECOND], deaths=[death])
    assert (found(twice) == {}) is is_excused


def test_a_second_run_is_excused_by_the_failure_of_the_first_one() -> None:
    flaky = row(lease=2, attempt=2, name=tasks.flaky.name)
    twice = *ENQUEUED, run("start"), run("raise"), *AGAIN
    assert found(ledger(*twice, rows=[flaky])) == {}


def test_a_limit_excuses_only_a_run_that_could_be_killed_for_it() -> None:
    def twice(name: str, **first: Any) -> Ledger:
        again = row(lease=2, attempt=2, name=name)
        return ledger(*ENQUEUED, run("start", **first), *AGAIN, rows=[again])

    assert found(twice(tasks.sleep.name)) == {}
    assert found(twice(tasks.sleep.name, time=5.0)) != {}
    assert found(twice(tasks.plain.name)) != {}


@pytest.mark.parametrize(
    "one",
    [
        ledger(*ENQUEUED, run("start"), run("raise"), rows=[DOOMED]),
        ledger(*ENQUEUED, produced("revoking"), rows=[REVOKED]),
        ledger(*ENQUEUED, rows=[row(**UNKNOWN, attempt=0)]),
        ledger(*FLEETING, *RUN, rows=[], pruned=1),
        ledger(*FLEETING, *RUN, rows=[], is_pruned_surely=False),
        ledger(
            *(*ENQUEUED, *RUN),
            rows=[row(**CRASHED)],
            attempts={("id of a", number, None): 1 for number in (1, 2, 3)},
        ),
        ledger(*ENQUEUED, run("start", time=8.0), run("end", time=9.0)),
    ],
    ids=["doomed", "revoked", "unknown", "pruned", "told not", "crashes", "in time"],
)
def test_ends_that_are_right(one: Ledger) -> None:
    assert found(one) == {}


def test_lateness_is_measured_outside_of_faults() -> None:
    late = *ENQUEUED, run("start", time=100.0), run("end", time=100.5)
    assert "late" in found(ledger(*late))
    assert "late" in found(ledger(*late, journal=journal(hit())))
    away = hit(is_outage=True, began=2.0, ended=95.0, reached=95.0)
    assert found(ledger(*late, journal=journal(away))) == {}


@pytest.mark.parametrize(
    ("words", "acked", "hits", "seconds"),
    [
        ("were enqueued", 2, {"reset": 1}, 0),
        ("were enqueued", 50, {"reset": 9}, 100),
        ("nothing struck", 100, {}, 20),
        ("of 2 faults only 0 strikes hit", 100, {"reset": 0, "refuse": 0}, 20),
        ("only 2 strikes hit", 1000, {"reset": 2}, 300),
    ],
)
def test_a_run_in_which_too_little_happened_says_nothing(
    words: str, acked: int, hits: dict[str, int], seconds: float
) -> None:
    values = {"acked": acked, "finished": acked}
    assert words in " ".join(too_little(values, hits, seconds))


def test_a_run_in_which_enough_happened_is_worth_something() -> None:
    assert not list(too_little({"acked": 100, "finished": 100}, {"reset": 1}, 20))


def test_recovery_is_counted_from_the_death_without_outages() -> None:
    one = ledger(*ENQUEUED, run("start"), *AGAIN)
    outage = hit(is_outage=True, began=4.0, ended=6.0, reached=6.0)
    deaths = [Death("worker1", 7, "70", 1.0), Death("worker1", 7, "70", 3.0)]
    [recovery] = recoveries(one, deaths, journal(outage), epoch=0.0)
    assert (recovery.died, recovery.again, recovery.seconds) == (3.0, 9.0, 4.0)
    assert list(recoveries(one, deaths[:1], journal(outage), epoch=0.0)) == []
    namesake = [Death("worker1", 7, "71", 3.0)]
    assert list(recoveries(one, namesake, journal(outage), epoch=0.0)) == []


def test_what_never_ran_again_has_no_recovery_of_no_time() -> None:
    one = ledger(*ENQUEUED, run("start"), rows=[])
    open_outage = hit(is_outage=True, began=4.0, ended=inf)
    deaths = [Death("worker1", 7, "70", 3.0)]
    [recovery] = recoveries(one, deaths, journal(open_outage), epoch=0.0)
    assert recovery.seconds == inf


def test_recoveries_are_told_as_they_were_measured() -> None:
    assert figures([]) == {"count": 0}
    assert figures([1.0, 2.0, inf, 9.0]) == {
        "count": 4,
        "median": 2.0,
        "p99": 9.0,
        "max": 9.0,
    }


def test_a_neighbour_that_came_to_no_end_is_found_when_all_else_was_calm() -> None:
    one = ledger(*ENQUEUED, run("start", pid=8, born="80"))
    killing = Killing("worker1", [(8, "80")], 2.5)
    strike = hit("worker1", fault="kill_child", harm=Harm.VICTIMS)
    elsewhere = hit("worker2")
    assert list(hurt_neighbours(one, [killing], journal(strike, elsewhere)))
    assert not list(hurt_neighbours(one, [killing], journal(strike, hit())))
    namesake = Killing("worker1", [(8, "81")], 2.5)
    assert not list(hurt_neighbours(one, [namesake], journal(strike)))
    ended = ledger(*ENQUEUED, *(run(e, pid=8, born="80") for e in ("start", "end")))
    assert not list(hurt_neighbours(ended, [killing], journal(strike)))


class Dead(Watcher):
    """A watcher that is told what the dead hold."""

    held: set[tuple[str, int]] | Exception | None = None
    asked = 0

    def _held_by_the_dead(self) -> set[tuple[str, int]] | None:
        self.asked += 1
        if isinstance(self.held, Exception):
            raise self.held
        return self.held


def test_the_watcher_counts_the_time_without_outages_and_forgets_nothing() -> None:
    watcher = Dead(journal(hit(is_outage=True, began=12.0, ended=14.0, reached=14.0)))
    watcher.held = {("a", 1)}
    watcher.look(9.0, 10.0)
    watcher.look(10.0, 16.0)
    assert watcher.longest == 4.0
    watcher.held = OperationalError("away")
    watcher.look(16.0, 17.0)
    watcher.held = None  # nobody is alive
    watcher.look(17.0, 18.0)
    watcher.held = {("a", 1)}
    watcher.look(18.0, 19.0)
    assert watcher.longest == 5.0


def test_the_watcher_says_when_it_saw_nothing_or_failed() -> None:
    blind, broken = Dead(journal()), Dead(journal())
    broken.held = KeyError("a column")
    for watcher in (blind, broken):
        watcher.held = watcher.held or OperationalError("away")
        watcher.start()
        wait_for(lambda: watcher.asked, 10, "a look")  # noqa: B023
        watcher.close()
    assert any("never had a look" in words for words in blind.problems())
    assert any("a column" in words for words in broken.problems())
