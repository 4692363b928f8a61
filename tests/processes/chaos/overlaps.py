"""One lease at a time, and every host at work: nobody is dead to the others."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise

from tests.processes.chaos.excuses import LINGER
from tests.processes.chaos.journal import Harm, Span, union
from tests.processes.chaos.ledger import Ledger
from tests.processes.chaos.runs import Run, runs_by_key

#: Seconds that a host may be without a task while the others begin so many: one of a
#: few would not be left out by chance. And what it may need to begin after a fault of
#: its own: to see it, and to start children.
IDLE, BUSY, BEGIN = 5.0, 100, 2.0


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
    """Began nothing while others did, and nothing was wrong with it alone.

    What is wrong with all of them is no reason: the others did begin something.
    """
    times: dict[str, list[float]] = defaultdict(list)
    for starts in ledger.starts.values():
        for start in starts:
            times[start.host].append(start.time)
    all_times = sorted(time for each in times.values() for time in each)
    for host, begun in times.items():
        unwell = _unwell(ledger, host)
        for last, following in pairwise(sorted(begun)):
            for begin, stop in _rest(unwell, last, following):
                others = bisect_left(all_times, stop) - bisect_right(all_times, begin)
                if others > BUSY and stop - begin > IDLE * ledger.second:
                    yield f"{host} for {stop - begin:.1f} s: {others} by others"


def _unwell(ledger: Ledger, host: str) -> list[Span]:
    """Return when something was wrong with a host, and not with all."""
    journal, begin = ledger.journal, BEGIN * ledger.second
    faults = [
        window
        for strike in journal.strikes
        if strike.harm is Harm.HOSTS and any(blow.host == host for blow in strike.blows)
        for window in strike.windows(host)
    ]
    spans = [*faults, *journal.downs.get(host, [])]
    return union((began, over + begin) for began, over in spans)


def _rest(spans: list[Span], start: float, end: float) -> Iterator[Span]:
    """Yield what is between two times and in none of the spans."""
    for began, over in spans:
        if start < min(began, end):
            yield start, min(began, end)
        start = max(start, over)
    if start < end:
        yield start, end


CHECKS: list[Callable[[Ledger], Iterable[str]]] = [overlapping_leases, idle_hosts]
