"""Outcomes that are not written yet: under way, or waiting for a locked row.

A row of a task may be locked by somebody else: a console, a backup, an action of the
admin. What waits for it holds up neither the outcomes of other tasks nor claims.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from django_jobs.records import Outcome

#: Seconds until an outcome whose row is locked is tried again.
LOCKED_WAIT = 0.5


class Unwritten:
    """What was handed to the database and did not come back as written."""

    def __init__(self) -> None:
        self._under_way: dict[str, Outcome] = {}
        #: By identity of ours.
        self._locked: dict[str, list[Outcome]] = {}
        self.next_try = float("inf")

    def __bool__(self) -> bool:
        return bool(self._under_way or self._locked)

    @property
    def ids(self) -> set[str]:
        waiting = {one.id for each in self._locked.values() for one in each}
        return waiting | set(self._under_way)

    def begin(self, outcomes: Sequence[Outcome]) -> None:
        """Note that a job is to write these."""
        self._under_way.update({outcome.id: outcome for outcome in outcomes})

    def end(
        self,
        worker_id: str,
        outcomes: Sequence[Outcome],
        locked: Collection[str],
        now: float,
    ) -> None:
        """Take the answer of that job; what is locked waits for the next try."""
        for outcome in outcomes:
            self._under_way.pop(outcome.id, None)
            if outcome.id in locked:
                self._locked.setdefault(worker_id, []).append(outcome)
                self.next_try = min(self.next_try, now + LOCKED_WAIT)

    def due(self, now: float) -> dict[str, list[Outcome]]:
        """Return what is to be tried again now, by identity, and forget it."""
        if now < self.next_try:
            return {}
        locked, self._locked, self.next_try = self._locked, {}, float("inf")
        return locked
