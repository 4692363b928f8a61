"""What excuses that a task ran again: its failure, a death, or a fault of its own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise

from tests.processes.chaos.hosts import Death
from tests.processes.chaos.journal import Harm
from tests.processes.chaos.ledger import Ledger
from tests.processes.chaos.rows import DRIFT
from tests.processes.chaos.runs import STORING, Run, limits_reached, runs_by_key
from tests.processes.chaos.tasks import ATOMIC

#: Seconds that a child may outlive its parent.
LINGER = 2.0


class Excuses:
    """Looks for the reason of each rerun; a fault is one for a task only once."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.runs = runs_by_key(ledger)
        self._limits = limits_reached(self.runs, ledger)
        self._strikes = [
            strike for strike in ledger.journal.strikes if strike.harm is Harm.HOSTS
        ]
        self._windows: dict[str, list[tuple[float, float, int]]] = {}
        self._deaths: dict[str, list[Death]] = defaultdict(list)
        for death in ledger.deaths:
            self._deaths[death.host].append(death)

    def unexcused(self, key: str) -> Iterator[Run]:
        """Yield the runs of a task for which there was no reason."""
        reruns = [
            (run, again)
            for run, again in pairwise(self.runs[key])
            if not self._is_explained(run, again)
        ]
        charged: dict[int, int] = {}
        strikes = [self._strikes_upon(run, again) for run, again in reruns]
        for number, (_, again) in enumerate(reruns):
            if not _charge(number, strikes, charged, set()):
                yield again

    def in_flight(self) -> int:
        """Return how many runs were under way when a fault or a death hit them."""
        runs = [run for of_key in self.runs.values() for run in of_key]
        return sum(
            self._has_died(run)
            or any(
                began <= run.last.time and run.first.time <= over
                for began, over, _ in self._windows_of(run.first.host)
            )
            for run in runs
        )

    def _is_explained(self, run: Run, again: Run) -> bool:
        return (
            self._has_failed(run, again)
            or self._has_died(run, again)
            or self.was_limited(run, again)
        )

    def _has_failed(self, run: Run, again: Run) -> bool:
        """Did it raise, or did its transaction fail after its end?"""
        if run.last.event == "raise":
            return run.last.time <= again.first.time
        row = self.ledger.row(run.first.key)
        if row is None or row.name not in ATOMIC:
            return False
        return any(
            record.number == run.first.attempt
            and record.error.startswith("django.db.")
            and run.last.time - DRIFT <= record.finished <= again.first.time + DRIFT
            for record in self.ledger.records[row.id]
        )

    def _has_died(self, run: Run, again: Run | None = None) -> bool:
        """Did its process die, or its worker, before its outcome was stored?

        It may even have begun in the moment that it took to die.
        """
        until = self._open_until(run, again)
        return any(
            (death.process == run.process or death.is_whole)
            and run.first.time - LINGER <= death.time <= until
            and run.last.time <= death.time + LINGER
            for death in self._deaths.get(run.first.host, ())
        )

    def was_limited(self, run: Run, again: Run) -> bool:
        """Was its process killed for the limit of a run in it?

        That one has written nothing since; its neighbours may have ended just before.
        """
        limit = self._limits.get(run.process)
        if limit is None or not run.first.time <= limit <= again.first.time:
            return False
        return not run.is_over or limit <= self._open_until(run)

    def was_lost(self, run: Run, again: Run) -> bool:
        """May its worker have died, or lost its lease, before all was stored?"""
        until = self._open_until(run, again)
        return bool(self._strikes_upon(run, again)) or any(
            death.is_whole and run.first.time - LINGER <= death.time <= until
            for death in self._deaths.get(run.first.host, ())
        )

    def _open_until(self, run: Run, again: Run | None = None) -> float:
        """Return until when its outcome may not have been stored.

        A fault that hits its host by then puts that off until it is over.
        """
        until = run.felt_until
        for began, over, _ in self._windows_of(run.first.host):
            if began > until:
                break
            if run.first.time <= over:
                until = max(until, over + STORING)
        return until if again is None else min(until, again.first.time)

    def _strikes_upon(self, run: Run, again: Run | None = None) -> list[int]:
        """Return the faults that hit its host while it was open."""
        until = self._open_until(run, again)
        found = {
            number
            for began, over, number in self._windows_of(run.first.host)
            if began <= until and run.first.time <= over
        }
        return sorted(found)

    def _windows_of(self, host: str) -> list[tuple[float, float, int]]:
        """Return from when to when each fault was felt on a host."""
        if host not in self._windows:
            self._windows[host] = sorted(
                (began, over, number)
                for number, strike in enumerate(self._strikes)
                for began, over in strike.windows(host)
            )
        return self._windows[host]


def _charge(
    rerun: int, strikes: list[list[int]], charged: dict[int, int], seen: set[int]
) -> bool:
    """Find a strike for a rerun; what it takes from another finds a further one."""
    for strike in strikes[rerun]:
        if strike not in seen:
            seen.add(strike)
            other = charged.get(strike)
            if other is None or _charge(other, strikes, charged, seen):
                charged[strike] = rerun
                return True
    return False


def unexcused_starts(ledger: Ledger) -> Iterator[str]:
    """Started again though the run before had not failed, died, or lost its lease.

    So is a success that was run again: where two runs ended, a fault must have kept
    the outcome of the first from the database.
    """
    excuses = Excuses(ledger)
    for key in excuses.runs:
        for run in excuses.unexcused(key):
            yield f"{key} lease {run.first.lease} at {run.first.time}"


def started_when_done(ledger: Ledger) -> Iterator[str]:
    """Started by a claim that is newer than its end."""
    for row in ledger.database.rows:
        for start in ledger.starts.get(row.key, ()):
            if row.is_finished and start.lease > row.lease:
                yield f"{row.key} lease {start.lease} after {row.lease}"


CHECKS: list[Callable[[Ledger], Iterable[str]]] = [
    unexcused_starts,
    started_when_done,
]
