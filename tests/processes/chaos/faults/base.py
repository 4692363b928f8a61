"""What a fault is: what it needs, how often it comes, strike and heal."""

from __future__ import annotations

import random
import re
import time
from typing import ClassVar

from tests.processes.chaos.faults.needs import Need
from tests.processes.chaos.journal import Harm, Strike
from tests.processes.chaos.site import Site


class Fault:
    """Something that goes wrong; its docstring says what."""

    #: What must be there, in the order to ask for it.
    needs: ClassVar[tuple[Need, ...]] = ()
    #: How often it is in the deck that faults are dealt from.
    weight: ClassVar[int] = 1
    #: Shortest and longest time between strike and heal, in seconds.
    lasts: ClassVar[tuple[float, float]] = (0.0, 0.0)
    #: Does it keep workers from the database meanwhile?
    is_outage: ClassVar[bool] = False
    #: Whose runs may it cut short, and for how long those that begin after its healing?
    #: Who has lost the lease by then must have noticed.
    harm: ClassVar[Harm] = Harm.HOSTS
    aftermath: ClassVar[float] = 1.0
    #: Is it felt only when it hits, and not until it is healed?
    is_momentary: ClassVar[bool] = False
    #: Does it keep a worker from noticing that its lease is over?
    is_blinding: ClassVar[bool] = False
    #: Seconds before and after it in which nothing else strikes.
    calm: ClassVar[float] = 0.0
    #: The number of the report that counts the strikes that hit some worker.
    counter: ClassVar[str] = ""
    #: Do other faults go on meanwhile?
    is_background: ClassVar[bool] = False

    def __init__(self, site: Site, choice: random.Random) -> None:
        self.site = site
        self.random = choice
        self._is_counted = False
        now = time.monotonic()
        #: What is written of it into the journal.
        self.record = Strike(
            self.name(),
            self.is_outage,
            now,
            harm=self.harm,
            aftermath=self.aftermath,
            is_momentary=self.is_momentary,
            is_blinding=self.is_blinding,
        )

    @classmethod
    def name(cls) -> str:
        return re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower()

    @classmethod
    def why_not(cls, site: Site) -> str:
        """Say why it cannot strike here; empty when it can."""
        return next(filter(None, [need(site) for need in cls.needs]), "")

    def hit(self, *hosts: str, times: int = 1) -> None:
        """Count what was hit: these hosts, or everybody when none is named."""
        self.record.hit(*hosts, times=times)
        workers = self.site.journal.workers
        if (
            self.counter
            and not self._is_counted
            and any(map(self.record.is_on, workers))
        ):
            self._is_counted = True
            self.site.counts[self.counter] += 1

    def strike(self) -> None:
        raise NotImplementedError

    def heal(self) -> None:
        """Nothing to do for faults that the site gets over by itself."""

    def look_back(self) -> None:
        """Nothing to look for once it is healed."""
