"""Scheduled tasks become READY when they are due, not at the next poll.

So do those that other workers gave back because they do not know them.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from django_jobs.failpoints import reach
from django_jobs.store import Store
from django_jobs.worker.completer import Completer, Job
from django_jobs.worker.options import WorkerOptions
from django_jobs.worker.strays import Strays
from django_jobs.worker.unwritten import LOCKED_WAIT

#: Look for newly scheduled tasks at most so often, in seconds.
DUE_LOOK = 0.05


class Promotion:
    """Knows when the next task is due, and when to ask for that again.

    ``found`` is called when tasks became READY; ``patience`` returns the seconds until
    the next look, if nothing happens before.
    """

    def __init__(
        self,
        completer: Completer,
        options: WorkerOptions,
        demand: Callable[[float], int],
        found: Callable[[], None],
        patience: Callable[[], float],
    ) -> None:
        self.completer = completer
        self._strays = Strays(options)
        self._demand = demand
        self._found = found
        self._patience = patience
        self._next_due: float | None = None
        self._next_look = 0.0
        self._last_look = float("-inf")
        self._is_promoting = False

    def expect(self, at: float | None) -> None:
        """Note that a task is due then."""
        times = [each for each in (at, self._next_due) if each is not None]
        self._next_due = min(times, default=None)

    def wake(self, now: float) -> None:
        """Look soon: somebody may have scheduled a task."""
        soon = max(now, self._last_look + DUE_LOOK)
        self._next_look = min(self._next_look, soon)

    @property
    def next_turn(self) -> float:
        if self._is_promoting or self._next_due is None:
            return self._next_look
        return min(self._next_look, self._next_due)

    def turn(self, now: float) -> None:
        """Start what is due."""
        self._promote_if_due(now)
        self._adopt_if_due(now)

    def _promote_if_due(self, now: float) -> None:
        is_due = self._next_due is not None and now >= self._next_due
        if self._is_promoting or not (is_due or now >= self._next_look):
            return
        if not self.completer.is_free:
            return
        self._is_promoting = True
        if is_due:
            self._next_due = None
        self._last_look = now
        self._next_look = float("inf")
        self.completer.submit(Job("promote", work=_promote, finish=self._promoted))

    def _promoted(self, answer: tuple[int, float | None]) -> None:
        self._is_promoting = False
        count, next_due = answer
        now = time.monotonic()
        if next_due is not None:
            # What is due and was passed over is locked by somebody.
            wait = next_due if count or next_due > 0 else LOCKED_WAIT
            # Not in place of what was written meanwhile: the answer may not know of it.
            self.expect(now + wait)
        # Unless somebody woke us meanwhile.
        self._next_look = min(self._next_look, now + self._patience())
        if count:
            self._found()

    def _adopt_if_due(self, now: float) -> None:
        # Only with room for them: others would claim them, and give them back again.
        if not self._strays.is_due(now, self._next_due) or not self.completer.is_free:
            return
        if self._demand(now) > 0:
            self._strays.looked(now)
            self.completer.submit(
                Job("adopt", self._strays.adopt, self._adopted, is_vital=False)
            )

    def _adopted(self, count: int) -> None:
        if count:
            self._found()
            self._strays.found(time.monotonic())


def _promote(store: Store) -> tuple[int, float | None]:
    """Make ready what is due; return how many and the seconds to the next."""
    next_due = store.next_due()
    if next_due is None or next_due > 0:
        return 0, next_due
    reach("promote.before")
    count = store.promote()
    reach("promote.after")
    return count, store.next_due()
