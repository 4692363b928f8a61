"""What excuses a further run of a task: its failure, a death, or a fault, once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.processes.chaos import checker, tasks
from tests.processes.chaos.accounts import TOO_LONG
from tests.processes.chaos.hosts import Death
from tests.processes.chaos.journal import Blow, Harm, Strike
from tests.processes.chaos.ledger import Ledger
from tests.processes.doctored import (
    AGAIN,
    ATOMIC,
    ENQUEUED,
    LEASE_LOST,
    RUN,
    SECOND,
    failure,
    found,
    hit,
    journal,
    ledger,
    record,
    row,
    run,
)


@pytest.mark.parametrize(
    ("is_excused", "strike"),
    [
        (True, hit()),
        (True, hit("worker1")),
        (False, hit("worker2")),
        (False, hit("worker1", harm=Harm.NOBODY)),
        (False, hit("worker1", harm=Harm.VICTIMS)),
        (False, Strike("reset", False, 2.5, 2.9)),
        (False, hit("worker1", began=8.0, ended=8.5)),
    ],
    ids=["all", "its host", "another", "harmless", "a process", "no hit", "later"],
)
def test_a_second_run_is_excused_by_what_hit_the_first_one(
    is_excused: bool, strike: Strike
) -> None:
    twice = ledger(
        *(*ENQUEUED, *RUN, *AGAIN),
        rows=[SECOND],
        records=LEASE_LOST,
        journal=journal(strike),
    )
    assert (found(twice) == {}) is is_excused


@pytest.mark.parametrize(
    ("is_excused", "death"),
    [
        (True, Death("worker1", 7, "70", 3.5)),
        (False, Death("worker1", 7, "71", 3.5)),
        (False, Death("worker2", 7, "70", 3.5)),
        (True, Death("worker1", 7, "70", 1.5)),
        (False, Death("worker1", 7, "70", -0.5)),
        (False, Death("worker1", 7, "70", 9.5)),
    ],
    ids=[
        "it died",
        "a namesake",
        "another host",
        "it lingered",
        "before it",
        "too late",
    ],
)
def test_a_second_run_is_excused_by_the_death_of_the_first_one(
    is_excused: bool, death: Death
) -> None:
    twice = ledger(
        *(*ENQUEUED, *RUN, *AGAIN), rows=[SECOND], records=LEASE_LOST, deaths=[death]
    )
    assert (found(twice) == {}) is is_excused


def test_who_is_dead_writes_nothing_for_long() -> None:
    death = Death("worker1", 7, "70", 3.5)
    lines = *ENQUEUED, run("start"), run("end", time=6.5), *AGAIN
    lives = ledger(*lines, rows=[SECOND], records=LEASE_LOST, deaths=[death])
    assert "unexcused_starts" in found(lives)


def test_a_second_run_is_excused_by_the_failure_of_the_first_one() -> None:
    flaky = row(lease=2, attempt=2, name=tasks.flaky.name)
    twice = *ENQUEUED, run("start"), run("raise", time=6.0), *AGAIN
    assert found(ledger(*twice, rows=[flaky], records=[failure(finished=6.1)])) == {}


def test_a_limit_excuses_only_a_run_that_could_be_killed_for_it() -> None:
    def twice(name: str, **first: Any) -> Ledger:
        again = row(lease=2, attempt=2, name=name)
        lines = *ENQUEUED, run("start", **first), *AGAIN
        return ledger(*lines, rows=[again], records=[failure(error=TOO_LONG)])

    assert found(twice(tasks.sleep.name)) == {}
    assert found(twice(tasks.sleep.name, time=5.0)) != {}
    assert found(twice(tasks.plain.name)) != {}


def reruns(*times: float, **more: Any) -> Ledger:
    """Return runs of one task that all ended, and all but the last one crashed."""
    lines = [
        run(event, lease=number, attempt=number, time=at + (event == "end") / 10)
        for number, at in enumerate(times, start=1)
        for event in ("start", "end")
    ]
    count = len(times)
    last = row(lease=count, attempt=count, crashes=count - 1)
    records = [record(number) for number in range(1, count)]
    return ledger(*(*ENQUEUED, *lines), rows=[last], records=records, **more)


def test_a_fault_excuses_one_further_run_of_a_task() -> None:
    assert found(reruns(2.45, 9.0, journal=journal(hit()))) == {}
    thrice = reruns(2.45, 2.6, 9.0, journal=journal(hit()))
    assert len(found(thrice)["unexcused_starts"]) == 1
    assert found(reruns(2.45, 2.6, 9.0, journal=journal(hit(), hit()))) == {}


def test_a_fault_excuses_no_run_that_began_after_it() -> None:
    times = [3.0 + number for number in range(9)]
    after = reruns(*times, journal=journal(hit(aftermath=0.05)))
    assert len(found(after)["unexcused_starts"]) == 8


def test_each_further_run_gets_the_fault_that_is_left_for_it() -> None:
    first, second = hit(), hit(began=3.1, ended=3.2)
    both = reruns(2.7, 3.15, 9.0, journal=journal(first, second))
    assert found(both) == {}
    assert len(found(reruns(2.95, 3.15, 9.0, journal=journal(second)))) == 1


def test_a_fault_puts_off_the_end_of_a_run_until_it_is_over() -> None:
    outage = hit(began=3.05, ended=30.0)
    again = hit(began=32.0, ended=32.1)
    assert found(reruns(3.0, 3.5, 40.0, journal=journal(outage, again))) == {}
    much_later = hit(began=34.0, ended=34.1)
    assert found(reruns(3.0, 3.5, 40.0, journal=journal(outage, much_later))) != {}


def test_what_waits_for_commits_is_felt_only_at_those() -> None:
    armed = hit("worker1", began=10.0, ended=510.0, is_momentary=True)
    armed.blows = [Blow("worker1", 500.0), Blow("worker2", 20.0)]
    assert not armed.touches("worker1", 250.0, 251.0)
    assert not armed.touches("worker1", 19.9, 20.1)
    assert armed.touches("worker1", 499.9, 500.1)
    assert armed.touches("worker2", 19.9, 20.1)
    assert not armed.touches("worker2", 499.9, 500.1)


def test_the_death_of_a_worker_excuses_what_had_just_ended_in_it() -> None:
    twice = *ENQUEUED, *RUN, *AGAIN

    def dies(**more: Any) -> Ledger:
        death = Death("worker1", 1, "10", 4.0, is_whole=True)
        values = {"rows": [SECOND], "records": LEASE_LOST}
        return ledger(*twice, **values, deaths=[replace(death, **more)])

    assert found(dies()) == {}
    assert found(dies(is_whole=False)) != {}
    assert found(dies(host="worker2")) != {}
    assert found(dies(time=8.5)) != {}


def test_a_limit_excuses_the_neighbours_in_the_process() -> None:
    def twice(pid: int) -> Ledger:
        sleeps = run("start", "b", lease=1, pid=pid)
        again = [line._replace(key="b", time=line.time + 1) for line in AGAIN]
        rows = [SECOND, row("b", lease=2, attempt=2, name=tasks.sleep.name)]
        return ledger(
            *(*ENQUEUED, *(line._replace(key="b") for line in ENQUEUED)),
            *(run("start"), sleeps, *AGAIN, *again),
            rows=rows,
            records=[record(), failure(key="b", error=TOO_LONG)],
        )

    assert found(twice(7)) == {}
    assert "unexcused_starts" in found(twice(8))


def test_an_atomic_task_may_fail_after_its_end() -> None:
    def twice(name: str, at: float) -> Ledger:
        error = failure(error="django.db.utils.OperationalError", finished=at)
        again = replace(SECOND, name=name, crashes=0)
        effects = ["a"] * (name == ATOMIC.name)
        return ledger(
            *(*ENQUEUED, *RUN, *AGAIN), rows=[again], records=[error], effects=effects
        )

    assert found(twice(ATOMIC.name, 3.2)) == {}
    assert found(twice(ATOMIC.name, 11.0)) != {}
    assert found(twice(tasks.plain.name, 3.2)) != {}


def test_as_many_duplicates_are_allowed_as_runs_were_under_way() -> None:
    lines = *ENQUEUED, *RUN, *AGAIN
    assert checker.numbers(ledger(*lines))["duplicates_allowed"] == 0
    struck = ledger(*lines, journal=journal(hit("worker1"), hit("worker1")))
    assert checker.numbers(struck)["duplicates_allowed"] == 1
    death = Death("worker1", 7, "70", 7.2)
    assert checker.numbers(ledger(*lines, deaths=[death]))["duplicates_allowed"] == 1
