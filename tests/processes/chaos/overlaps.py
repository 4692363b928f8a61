"""One lease at a time, and every host at work: nobody is dead to the others."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise

from tests.processes.chaos.excuses import LINGER
from tests.processes.chaos.journal import Harm, union
from tests.processes.chaos.ledger import Ledger
from tests.processes.chaos.runs import Run, runs_by_key
from tests.processes.chaos.site import LEASE

#: Seconds that a host may be without a task while the others begin so many, and what
#: a fault may add to that: the lease, and a start.
IDLE, BUSY, START = 10.0, 50, LEASE + 4.0


def overlapping_leases(ledger: Ledger) -> Iterator[str]:
    """Ran under an earlier lease when a later one had begun.

    A worker that cannot renew its lease ends its runs before others begin them. Only
    who is stopped (SIGSTOP) cannot, and who was killed may take a moment to die.
    """
    for key, runs in runs_by_key(ledger).items():
        for number, run in enumerate(runs[:-1]):
            begun = min(later.first.time for later in runs[number + 1 :])
            if run.last.time > begun and not _is_helpless(ledger, run, begun):
                yield f"{key} lease {run.first.lease} until {run.last.time}: {begun}"


def _is_helpless(ledger: Ledger, run: Run, begun: float) -> bool:
    host, end = run.first.host, run.last.time
    is_stopped = any(
        strike.is_blinding and strike.touches(host, begun, end)
        for strike in ledger.journal.strikes
    )
    return is_stopped or any(
        death.host == host
        and (death.is_whole or death.process == run.process)
        and run.first.time <= death.time + LINGER
        and death.time <= begun
        and end <= death.time + LINGER
        for death in ledger.deaths
    )


def idle_hosts(ledger: Ledger) -> Iterator[str]:
    """Began nothing for long while others did, and nothing was wrong with it."""
    times: dict[str, list[float]] = defaultdict(list)
    for starts in ledger.starts.values():
        for start in starts:
            times[start.host].append(start.time)
    all_times = sorted(time for each in times.values() for time in each)
    for host, begun in times.items():
        for last, following in pairwise(sorted(begun)):
            others = bisect_left(all_times, following) - bisect_left(all_times, last)
            idle = following - last - _pardoned(ledger, host, last, following)
            if others > BUSY and idle > IDLE * ledger.second:
                yield f"{host} for {idle:.1f} s until {following}"


def _pardoned(ledger: Ledger, host: str, start: float, end: float) -> float:
    """Return for how long between two times a host had a reason to do nothing."""
    spans = [
        (max(began, start), min(over + START, end))
        for strike in ledger.journal.strikes
        if strike.harm is not Harm.NOBODY
        for began, over in strike.windows(host)
    ]
    return sum(stop - begin for begin, stop in union(spans))


CHECKS: list[Callable[[Ledger], Iterable[str]]] = [overlapping_leases, idle_hosts]
