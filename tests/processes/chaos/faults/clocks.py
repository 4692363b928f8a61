"""Clocks of hosts go wrong, or jump."""

from __future__ import annotations

import random

from tests.processes.chaos.faults import needs
from tests.processes.chaos.faults.base import Fault
from tests.processes.chaos.journal import Harm
from tests.processes.chaos.site import Site

HOUR = 3600


class ClockSkew(Fault):
    """The clock of a host is an hour fast or slow for a while."""

    needs = (needs.own_clocks,)
    lasts = (6.0, 15.0)
    is_background = True
    harm = Harm.NOBODY

    def __init__(self, site: Site, choice: random.Random) -> None:
        super().__init__(site, choice)
        programs = [*site.hosts, *site.producers]
        self.name_of_host = choice.choice(programs).name

    def strike(self) -> None:
        self.put(self.random.choice([-HOUR, HOUR]))

    def heal(self) -> None:
        self.put(0)

    def put(self, seconds: int) -> None:
        self.site.clocks.set(self.name_of_host, seconds)
        self.site.counts["clock_jumps"] += 1
        self.hit(self.name_of_host)


class ClockJumps(ClockSkew):
    """The clock of a host jumps to and fro by up to two hours."""

    lasts = (0.0, 0.0)
    is_background = False

    def strike(self) -> None:
        for _ in range(self.random.randint(2, 5)):
            self.put(self.random.randint(-2 * HOUR, 2 * HOUR))
            self.site.wait(self.random.uniform(0.1, 0.8))


FAULTS = [ClockSkew, ClockJumps]
