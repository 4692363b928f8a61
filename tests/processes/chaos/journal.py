"""What was done to the site, and when: the checker asks what may excuse a delay."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import NamedTuple


class Harm(Enum):
    """Whose runs a fault may cut short."""

    NOBODY = auto()
    VICTIMS = auto()  #: those of the processes that it kills, and no others
    HOSTS = auto()  #: all of the hosts that it hits


class Blow(NamedTuple):
    """A moment at which a strike hit something."""

    host: str
    time: float  #: monotonic


#: The host of a blow that hits them all.
EVERYWHERE = ""


@dataclass(slots=True)
class Strike:
    """A fault, from its strike to the end of its healing; times are monotonic."""

    fault: str
    is_outage: bool
    began: float
    ended: float = float("inf")
    #: When the database was in reach again; it may be before all is healed.
    reached: float = float("inf")
    harm: Harm = Harm.HOSTS
    #: Seconds for which it is felt after it was healed, or after each blow.
    aftermath: float = 0.0
    #: Is it felt only when it hits? Others are from the strike to the healing.
    is_momentary: bool = False
    #: Does it keep a worker from noticing that its lease is over?
    is_blinding: bool = False
    #: How often it hit something; a strike without a hit did nothing.
    hits: int = 0
    blows: list[Blow] = field(default_factory=list)
    #: Hosts that it was aimed at, whether they had something to be hit or not.
    targets: set[str] = field(default_factory=set)

    def hit(self, *hosts: str, times: int = 1) -> None:
        """Note that something was hit: these hosts, or all when none is named."""
        if times > 0:
            now = time.monotonic()
            self.hits += times
            self.blows += [Blow(host, now) for host in hosts or (EVERYWHERE,)]

    def windows(self, host: str) -> Iterator[tuple[float, float]]:
        """Yield from when to when it could be felt on a host."""
        times = [blow.time for blow in self.blows if blow.host in (host, EVERYWHERE)]
        if self.is_momentary:
            yield from ((each, each + self.aftermath) for each in times)
        elif times:
            yield self.began, self.ended + self.aftermath

    def is_on(self, host: str) -> bool:
        """Did it hit something, and was it aimed at a host as well?"""
        hosts = self.targets | {blow.host for blow in self.blows}
        return self.hits > 0 and bool(hosts & {host, EVERYWHERE})

    def touches(self, host: str, start: float, end: float) -> bool:
        """Could it be felt on a host between two times?"""
        return any(began <= end and over >= start for began, over in self.windows(host))


#: From when to when, monotonic.
Span = tuple[float, float]


def union(spans: Iterable[Span]) -> list[Span]:
    """Return spans that do not touch, in order."""
    found: list[Span] = []
    for begin, stop in sorted(spans):
        if found and begin <= found[-1][1]:
            found[-1] = found[-1][0], max(stop, found[-1][1])
        elif stop > begin:
            found.append((begin, stop))
    return found


def intersection(many: Sequence[list[Span]]) -> list[Span]:
    """Return what all lists of spans have in common."""
    common = many[0]
    for spans in many[1:]:
        both = [
            (max(one[0], other[0]), min(one[1], other[1]))
            for one in common
            for other in spans
        ]
        common = [(begin, stop) for begin, stop in both if stop > begin]
    return common


@dataclass(slots=True)
class Journal:
    """The strikes of a run, in order."""

    began: float = field(default_factory=time.monotonic)
    strikes: list[Strike] = field(default_factory=list)
    #: The hosts of the workers, and from when to when each of them was gone.
    workers: list[str] = field(default_factory=list)
    downs: dict[str, list[Span]] = field(default_factory=dict)

    def say(self, words: str) -> None:
        """Tell who watches how far the run is."""
        sys.stderr.write(f"{time.monotonic() - self.began:7.1f} s  {words}\n")
        sys.stderr.flush()

    def begin(self, strike: Strike) -> Strike:
        self.strikes.append(strike)
        return strike

    def counts(self) -> dict[str, int]:
        return dict(sorted(Counter(each.fault for each in self.strikes).items()))

    def hits(self) -> dict[str, int]:
        found = dict.fromkeys(sorted({each.fault for each in self.strikes}), 0)
        for strike in self.strikes:
            found[strike.fault] += strike.hits
        return found

    def away(self, start: float, end: float) -> float:
        """Return for how long between two times no worker had the database in reach."""
        hosts = self.workers or [EVERYWHERE]
        cut_off = [self._cut_off(host, start, end) for host in hosts]
        return sum(stop - begin for begin, stop in intersection(cut_off))

    def _cut_off(self, host: str, start: float, end: float) -> list[Span]:
        """Return when a host had no database in reach, or was stopped."""
        spans = [
            (max(strike.began, start), min(strike.reached, end))
            for strike in self.strikes
            if (strike.is_outage or strike.is_blinding) and strike.is_on(host)
        ]
        return union(spans)

    def unwell(self, hosts: Iterable[str], start: float, end: float) -> float:
        """Return for how long between two times a fault was felt on some host."""
        spans = [
            (max(began, start), min(over, end))
            for strike in self.strikes
            if strike.harm is not Harm.NOBODY
            for host in hosts
            for began, over in strike.windows(host)
        ]
        return sum(stop - begin for begin, stop in union(spans))

    def is_blind(self, host: str, time: float) -> bool:
        """Was the worker of a host kept from noticing that its lease was over?"""
        return any(
            strike.is_blinding and strike.touches(host, time, time)
            for strike in self.strikes
        )

    def touching(
        self, host: str, start: float, end: float, *harms: Harm
    ) -> Iterator[Strike]:
        """Yield the strikes of such harms that a host could feel between two times."""
        for strike in self.strikes:
            if strike.harm in harms and strike.touches(host, start, end):
                yield strike

    def is_any_felt(self, start: float, end: float) -> bool:
        """Did some fault hurt some host between two times?"""
        return any(
            strike.touches(host, start, end)
            for strike in self.strikes
            if strike.harm is not Harm.NOBODY
            for host in {blow.host for blow in strike.blows}
        )

    def is_disturbed(self, by_all_but: Strike, start: float, end: float) -> bool:
        """Did all workers feel another fault between two times?"""
        others = [
            strike
            for strike in self.strikes
            if strike is not by_all_but and strike.harm is not Harm.NOBODY
        ]
        hosts = self.workers or [EVERYWHERE]
        return all(
            any(strike.touches(host, start, end) for strike in others) for host in hosts
        )

    def is_calm(self, host: str, start: float, end: float) -> bool:
        """Did a host feel only one strike between two times?"""
        during = self.touching(host, start, end, Harm.VICTIMS, Harm.HOSTS)
        return len(list(during)) == 1
