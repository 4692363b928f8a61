"""Which fault strikes when: all of it comes from the seed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tests.processes.chaos.faults.base import Fault
from tests.processes.chaos.faults.servers import LongAway

#: Shortest and longest pause between the end of a fault and the next one, in seconds.
PAUSE = (0.3, 2.0)
#: Lasts a fault that is healed as soon as it has struck.
MOMENT = (0.0, 0.0)
#: How often a short fault strikes in the middle of a long one.
SECOND = 0.3


@dataclass(frozen=True, slots=True)
class Step:
    """A fault of the plan; its own choices come from its seed."""

    fault: type[Fault]
    seed: str
    lasts: float
    pause: float
    #: Another fault in the middle of this one.
    second: type[Fault] | None = None

    def __str__(self) -> str:
        within = f" with {self.second.name()}" if self.second else ""
        return f"{self.fault.name()} {self.lasts:.1f}+{self.pause:.1f}{within}"

    @property
    def seconds(self) -> float:
        return self.pause + (0.0 if self.fault.is_background else self.lasts)


def make_plan(
    faults: Sequence[type[Fault]], seconds: float, seed: str, away: float = 0.0
) -> list[Step]:
    """Deal faults as from a deck of cards, so that none is forgotten for long."""
    choice = random.Random(f"{seed} plan")
    short = [fault for fault in faults if fault.lasts == MOMENT and not fault.is_outage]
    plan: list[Step] = []
    deck: list[type[Fault]] = []
    left = seconds - away
    while left > 0 and faults:
        if not deck:
            deck = [fault for fault in faults for _ in range(fault.weight)]
            choice.shuffle(deck)
        plan.append(_step(deck.pop(), f"{seed} {len(plan)}", choice, short))
        left -= plan[-1].seconds
    if away:
        plan.insert(len(plan) // 2, Step(LongAway, f"{seed} away", away, 5.0))
    return plan


def _step(
    fault: type[Fault],
    seed: str,
    choice: random.Random,
    short: Sequence[type[Fault]],
) -> Step:
    lasts = round(choice.uniform(*fault.lasts), 1)
    step = Step(fault, seed, lasts, round(choice.uniform(*PAUSE), 1))
    is_long = lasts > 1 and not fault.is_background
    if is_long and short and choice.random() < SECOND:
        return replace(step, second=choice.choice(short))
    return step
