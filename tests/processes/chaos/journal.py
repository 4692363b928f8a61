"""What was done to the site, and when: the checker asks what may excuse a delay."""

from __future__ import annotations

import sys
import time
from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Strike:
    """A fault, from its strike to the end of its healing; times are monotonic."""

    fault: str
    is_outage: bool
    began: float
    ended: float = float("inf")
    #: When the database was in reach again; it may be before all is healed.
    reached: float = float("inf")


@dataclass(slots=True)
class Journal:
    """The strikes of a run, in order."""

    began: float = field(default_factory=time.monotonic)
    strikes: list[Strike] = field(default_factory=list)

    def say(self, words: str) -> None:
        """Tell who watches how far the run is."""
        sys.stderr.write(f"{time.monotonic() - self.began:7.1f} s  {words}\n")
        sys.stderr.flush()

    def begin(self, fault: str, is_outage: bool) -> Strike:
        strike = Strike(fault, is_outage, time.monotonic())
        self.strikes.append(strike)
        return strike

    @property
    def is_outage(self) -> bool:
        """Is something on that keeps workers from the database?"""
        now = time.monotonic()
        return any(each.is_outage and each.reached > now for each in self.strikes)

    def counts(self) -> dict[str, int]:
        return dict(sorted(Counter(each.fault for each in self.strikes).items()))

    def away(self, start: float, end: float) -> float:
        """Return for how long between two times the database was out of reach."""
        total, last = 0.0, start
        for strike in sorted(self.strikes, key=lambda each: each.began):
            if strike.is_outage:
                begin, stop = max(strike.began, last), min(strike.reached, end)
                if stop > begin:
                    total, last = total + stop - begin, stop
        return total

    def is_calm(self, start: float, end: float) -> bool:
        """Was there only one strike between two times?"""
        during = [
            each for each in self.strikes if each.ended >= start and each.began <= end
        ]
        return len(during) == 1
