"""What the parent believes a child is running, and what not."""

from __future__ import annotations

import random

import pytest

from django_jobs.worker.lanes import Assigned, Lane
from tests.worker.parts import claimed


def assigned(estimate: float = 1.0, time_limit: float | None = None) -> Assigned:
    return Assigned(claimed(), time_limit, estimate)


def key(one: Assigned) -> str:
    return one.task.id


@pytest.mark.parametrize("seed", range(30))
def test_what_runs_are_always_the_first_unfinished(seed: int) -> None:
    dice = random.Random(seed)
    lane = Lane(dice.randint(1, 4))
    unfinished: list[str] = []
    for now in range(200):
        if unfinished and dice.random() < 0.5:
            gone = dice.choice(unfinished)
            unfinished.remove(gone)
            lane.remove(gone, now)
        else:
            lane.add(one := assigned(dice.random()), now)
            unfinished.append(key(one))
        assert set(lane.running) == set(unfinished[: lane.slots])
        assert [*lane.waiting] == unfinished[lane.slots :]


def test_the_clock_of_a_task_starts_when_a_slot_is_free_for_it() -> None:
    lane = Lane(1)
    first, second = assigned(time_limit=5), assigned(time_limit=5)
    lane.add(first, now=10)
    lane.add(second, now=11)
    lane.remove(key(first), now=13)
    assert (first.deadline, second.deadline) == (15, 18)


def test_a_task_that_returns_frees_its_slot_but_not_another() -> None:
    lane = Lane(1)
    first, second, third = assigned(), assigned(), assigned()
    for one in (first, second, third):
        lane.add(one, now=0)
    assert lane.remove(key(second), now=1) is second
    assert [*lane.running] == [key(first)]
    assert third.started == 0


def test_a_task_it_does_not_have_changes_nothing() -> None:
    lane = Lane(1)
    lane.add(assigned(0.25), now=0)
    assert lane.remove("another", now=1) is None
    assert (len(lane), lane.estimate) == (1, 0.25)


def test_an_interrupted_task_is_due_at_the_end_of_its_grace() -> None:
    one = assigned(time_limit=100)
    Lane(1).add(one, now=10)
    one.kill_at = 12
    assert one.deadline == 12


def test_a_task_without_limits_has_no_deadline() -> None:
    assert assigned().deadline is None


def test_the_estimate_is_exactly_nothing_when_all_is_done() -> None:
    lane = Lane(2)
    ones = [assigned(0.1) for _ in range(10)]
    for one in ones:
        lane.add(one, now=0)
    for one in ones:
        lane.remove(key(one), now=1)
    assert lane.estimate == 0.0


def test_the_longest_run_is_that_of_the_oldest_in_a_slot() -> None:
    lane = Lane(2)
    assert lane.longest_running(5) == 0
    for now in (1, 2, 3):
        lane.add(assigned(), now)
    assert lane.longest_running(5) == 4


def test_taking_all_tells_the_started_from_the_untouched() -> None:
    lane = Lane(1)
    ones = [assigned() for _ in range(3)]
    for one in ones:
        lane.add(one, now=0)
    running, waiting = lane.take_all()
    assert (running, [*waiting]) == (ones[:1], ones[1:])
    assert (len(lane), lane.estimate, lane.free) == (0, 0.0, 1)
