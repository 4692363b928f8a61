"""What a fault is: what it needs, how often it comes, strike and heal."""

from __future__ import annotations

import random
import re
from typing import ClassVar

from tests.processes.chaos.faults.needs import Need
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

    #: Do other faults go on meanwhile?
    is_background: ClassVar[bool] = False

    def __init__(self, site: Site, choice: random.Random) -> None:
        self.site = site
        self.random = choice

    @classmethod
    def name(cls) -> str:
        return re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower()

    @classmethod
    def why_not(cls, site: Site) -> str:
        """Say why it cannot strike here; empty when it can."""
        return next(filter(None, [need(site) for need in cls.needs]), "")

    def strike(self) -> None:
        raise NotImplementedError

    def heal(self) -> None:
        """Nothing to do for faults that the site gets over by itself."""
