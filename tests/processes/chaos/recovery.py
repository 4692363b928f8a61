"""How long it took until the tasks of a killed process ran again."""

from __future__ import annotations

import statistics
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from math import ceil, inf, isfinite
from typing import NamedTuple

from tests.processes.chaos.audit import RunLine
from tests.processes.chaos.hosts import Death, Killing
from tests.processes.chaos.journal import Journal
from tests.processes.chaos.ledger import Ledger

#: Seconds; no task runs for longer unless something is wrong.
CALM = 3.0

Run = tuple[str, int, str, int, str]


class Recovery(NamedTuple):
    """A task whose process died, and what came next."""

    key: str
    died: float  #: monotonic, as the other times
    again: float  #: its next start, or its end when there was none
    seconds: float  #: between them, while the database was in reach


def interrupted(ledger: Ledger) -> list[RunLine]:
    """Return the starts of runs that came to no end of their own."""
    ended = {_run(line) for line in ledger.runs if line.event != "start"}
    starts = [line for line in ledger.runs if line.event == "start"]
    return [line for line in starts if _run(line) not in ended]


def _run(line: RunLine) -> Run:
    return line.key, line.lease, line.host, line.pid, line.born


def recoveries(
    ledger: Ledger, deaths: list[Death], journal: Journal
) -> Iterator[Recovery]:
    """Yield the recoveries of all tasks of processes that died."""
    died = defaultdict(list)
    for each in sorted(deaths, key=lambda each: each.time):
        died[each.host, each.pid, each.born].append(each.time)
    blows = sorted(
        [death.time for death in deaths] + [each.began for each in journal.strikes]
    )
    for line in interrupted(ledger):
        times = died[line.host, line.pid, line.born]
        place = bisect_right(times, line.time)
        if place < len(times):
            death = times[place]
            again, lease = _next(ledger, line.key, death)
            if lease > line.lease + 1:
                # Others had claimed it meanwhile, and came to grief before they
                # started it: what counts is the last blow before it ran.
                death = max(death, blows[bisect_right(blows, again) - 1])
            yield Recovery(line.key, death, again, _between(journal, death, again))


def _between(journal: Journal, death: float, again: float) -> float:
    if not isfinite(again):  # it never ran again, whatever outage is open still
        return inf
    return max(0.0, again - death - journal.away(death, again))


def _next(ledger: Ledger, key: str, death: float) -> tuple[float, int]:
    """Return the time and the lease of the next start, or those of the end."""
    for start in ledger.starts[key]:
        if start.time > death:
            return start.time, start.lease
    row = ledger.row(key)
    if row is None or row.finished is None:
        return inf, 0
    return row.finished, row.lease


def figures(seconds: Sequence[float]) -> dict[str, float]:
    """Return what is said of many recoveries, as they were measured."""
    known = sorted(each for each in seconds if isfinite(each))
    if not known:
        return {"count": 0}
    return {
        "count": len(seconds),
        "median": round(statistics.median(known), 2),
        "p99": round(known[ceil(0.99 * len(known)) - 1], 2),
        "max": round(known[-1], 2),
    }


#: Faults after which the server takes connections again at a moment that is known.
RETURNS = ("crash_server", "restart_server", "server_away", "long_away", "fail_over")


def returns(ledger: Ledger, journal: Journal) -> Iterator[float]:
    """Yield the time from each return of the server to the end of a run begun since.

    Where all workers felt another fault meanwhile, that says nothing.
    """
    ends = sorted(
        (line.time, line.key, line.lease) for line in ledger.runs if line.event == "end"
    )
    began = {
        (key, start.lease): start.time
        for key, starts in ledger.starts.items()
        for start in starts
    }
    for strike in journal.strikes:
        if strike.fault in RETURNS:
            for at, key, lease in ends[bisect_right(ends, (strike.reached,)) :]:
                if began.get((key, lease), 0.0) > strike.reached:
                    if not journal.is_disturbed(strike, strike.reached, at):
                        yield at - strike.reached
                    break


def judged(ledger: Ledger, killings: list[Killing], journal: Journal) -> list[Killing]:
    """Return the killings whose neighbours had nothing else to suffer from."""
    return [
        each
        for each in killings
        if each.neighbours
        and journal.is_calm(each.host, each.time - CALM, each.time + CALM)
        and not any(
            death.host == each.host and abs(death.time - each.time) < CALM
            for death in ledger.suicides
        )
    ]


def hurt_neighbours(
    ledger: Ledger, killings: list[Killing], journal: Journal
) -> Iterator[str]:
    """Yield runs beside a killed child that came to no end, with all else calm."""
    broken = interrupted(ledger)
    for killing in judged(ledger, killings, journal):
        for line in broken:
            is_neighbour = (line.pid, line.born) in killing.neighbours
            began_before = killing.time - CALM < line.time < killing.time
            if line.host == killing.host and is_neighbour and began_before:
                yield f"{line.key} {line.host} {line.pid}"
