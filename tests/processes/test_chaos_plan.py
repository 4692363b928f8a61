"""The plan of the chaos comes from its seed and forgets no fault."""

from __future__ import annotations

import pytest

from tests.processes.chaos.faults import FAULTS
from tests.processes.chaos.faults.base import Fault
from tests.processes.chaos.faults.servers import LongAway
from tests.processes.chaos.plan import make_plan

ALL = list(FAULTS.values())
CALM = [fault for fault in ALL if fault.calm]


def test_the_same_seed_makes_the_same_plan() -> None:
    assert make_plan(ALL, 100, "1") == make_plan(ALL, 100, "1")
    assert make_plan(ALL, 100, "1") != make_plan(ALL, 100, "2")


def test_every_fault_comes_before_one_comes_too_often() -> None:
    cards, first = sum(fault.weight for fault in ALL), len(CALM)
    dealt = [step.fault for step in make_plan(ALL, 1000, "1")][first : first + cards]
    for fault in ALL:
        assert dealt.count(fault) == fault.weight


def test_what_needs_calm_comes_first_and_alone() -> None:
    plan = make_plan(ALL, 1000, "1")
    assert [step.fault for step in plan][: len(CALM)] == CALM != []
    calm = [step for step in plan if step.fault.calm]
    assert len(calm) > len(CALM)
    assert all(min(step.before, step.pause) >= step.fault.calm for step in calm)
    assert not {step.second for step in plan} & set(CALM)


def test_the_plan_fills_its_time() -> None:
    for seconds in (1, 20, 300):
        plan = make_plan(ALL, seconds, "1")
        assert -0.1 < sum(step.seconds for step in plan) - seconds < 30


def test_a_long_outage_comes_once_when_it_is_asked_for() -> None:
    assert LongAway not in [step.fault for step in make_plan(ALL, 500, "1")]
    plan = make_plan(ALL, 500, "1", away=120)
    [step] = [step for step in plan if step.fault is LongAway]
    assert step.lasts == 120
    assert -0.1 < sum(step.seconds for step in plan) - 500 < 40


def test_what_strikes_in_the_middle_of_a_fault_leaves_the_server_alone() -> None:
    seconds = {step.second for step in make_plan(ALL, 5000, "1")} - {None}
    assert seconds
    assert not any(fault.is_outage for fault in seconds if fault)


@pytest.mark.parametrize("fault", ALL, ids=lambda fault: fault.name())
def test_a_fault_says_what_it_is(fault: type[Fault]) -> None:
    assert (fault.__doc__ or "").endswith(".")
    assert fault.lasts[0] <= fault.lasts[1]
