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
    #: Time in which nothing happens before it.
    before: float = 0.0
    #: Another fault in the middle of this one.
    second: type[Fault] | None = None

    def __str__(self) -> str:
        within = f" with {self.second.name()}" if self.second else ""
        return f"{self.fault.name()} {self.lasts:.1f}+{self.pause:.1f}{within}"

    @property
    def seconds(self) -> float:
        lasts = 0.0 if self.fault.is_background else self.lasts
        return self.before + lasts + self.pause


def make_plan(
    faults: Sequence[type[Fault]], seconds: float, seed: str, away: float = 0.0
) -> list[Step]:
    """Deal faults as from a deck of cards, so that none is forgotten for long.

    Those that need calm come first of all as well: no other fault is felt by then.
    """
    choice = random.Random(f"{seed} plan")
    short = [fault for fault in faults if fault.lasts == MOMENT and is_quick(fault)]
    calm = [fault for fault in faults if fault.calm]
    plan = [_step(each, f"{seed} first", choice, short) for each in calm]
    deck: list[type[Fault]] = []
    left = seconds - away - sum(step.seconds for step in plan)
    while left > 0 and faults:
        if not deck:
            deck = [fault for fault in faults for _ in range(fault.weight)]
            choice.shuffle(deck)
        plan.append(_step(deck.pop(), f"{seed} {len(plan)}", choice, short))
        left -= plan[-1].seconds
    if away:
        plan.insert(len(plan) // 2, Step(LongAway, f"{seed} away", away, 5.0))
    return plan


def is_quick(fault: type[Fault]) -> bool:
    """May it strike in the middle of another fault?"""
    return not (fault.is_outage or fault.calm)


def _step(
    fault: type[Fault],
    seed: str,
    choice: random.Random,
    short: Sequence[type[Fault]],
) -> Step:
    lasts = round(choice.uniform(*fault.lasts), 1)
    pause = max(fault.calm, round(choice.uniform(*PAUSE), 1))
    step = Step(fault, seed, lasts, pause, before=fault.calm)
    is_long = lasts > 1 and not fault.is_background
    if is_long and short and choice.random() < SECOND:
        return replace(step, second=choice.choice(short))
    return step
