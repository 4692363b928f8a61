"""How long it took until the tasks of a killed process ran again."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

from tests.processes.chaos.audit import RunLine
from tests.processes.chaos.checker import Ledger
from tests.processes.chaos.hosts import Death, Killing
from tests.processes.chaos.journal import Journal

#: Seconds; no task runs for longer unless something is wrong.
CALM = 3.0

Run = tuple[str, int, str, int]


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
    return line.key, line.lease, line.host, line.pid


def recoveries(
    ledger: Ledger, deaths: list[Death], journal: Journal, epoch: float
) -> Iterator[Recovery]:
    """Yield the recoveries of all tasks of processes that died.

    ``epoch`` is the time of the database's clock at which the monotonic one was 0.
    """
    died = defaultdict(list)
    for death in sorted(deaths, key=lambda each: each.time):
        died[death.host, death.pid].append(death.time)
    starts = defaultdict(list)
    for line in ledger.runs:
        if line.event == "start":
            starts[line.key].append(line)
    blows = sorted(
        [death.time for death in deaths] + [each.began for each in journal.strikes]
    )
    for line in interrupted(ledger):
        times = died[line.host, line.pid]
        place = bisect_right(times, line.time)
        if place < len(times):
            death = times[place]
            later = [each for each in starts[line.key] if each.time > death]
            again, lease = _next(ledger, line.key, later, epoch)
            if lease > line.lease + 1:
                # Others had claimed it meanwhile, and came to grief before they
                # started it: what counts is the last blow before it ran.
                death = max(death, blows[bisect_right(blows, again) - 1])
            seconds = again - death - journal.away(death, again)
            yield Recovery(line.key, death, again, max(0.0, seconds))


def _next(
    ledger: Ledger, key: str, later: list[RunLine], epoch: float
) -> tuple[float, int]:
    """Return the time and the lease of the next start, or those of the end."""
    if later:
        first = min(later, key=lambda each: each.time)
        return first.time, first.lease
    row = ledger.row(key)
    if row is None or row.finished_at is None:
        return float("inf"), 0
    return row.finished_at.timestamp() - epoch, row.lease


def hurt_neighbours(
    ledger: Ledger, killings: list[Killing], journal: Journal
) -> Iterator[str]:
    """Yield runs beside a killed child that came to no end, with all else calm."""
    broken = interrupted(ledger)
    for killing in killings:
        if journal.is_calm(killing.time - CALM, killing.time + CALM):
            for line in broken:
                is_neighbour = line.pid in killing.neighbours
                began_before = killing.time - CALM < line.time < killing.time
                if line.host == killing.host and is_neighbour and began_before:
                    yield f"{line.key} {line.host} {line.pid}"
