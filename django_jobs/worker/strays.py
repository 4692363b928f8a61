"""Tasks that other workers gave back because they do not know them, as during a deploy.

Left to chance, the worker that gave one back claims it again as often as not. So
whoever knows such a task takes it at once, before it is due again. That is as a rule a
worker that is new. The others look too, but rarely: they have something due for ever.
"""

from __future__ import annotations

from django_jobs.definitions import find_definition
from django_jobs.store import Store
from django_jobs.worker.options import WorkerOptions, serves

#: Seconds after which a task that a worker does not know may be claimed again, give or
#: take a half.
UNKNOWN_WAIT = 5.0
LONGEST_WAIT = 1.5 * UNKNOWN_WAIT
#: So many seconds long is a worker new, from its first look and after each find.
NEW = 120.0
#: Look for them at most so often while it is new, and later, in seconds.
LOOK = 0.5
LATER_LOOK = 5.0


class Strays:
    """When to look for such tasks, and which of them are ours."""

    def __init__(self, options: WorkerOptions) -> None:
        self._queues = options.describe_queues()
        self._next_look = 0.0
        #: Set by the first look.
        self._new_until: float | None = None

    def is_due(self, now: float, next_due: float | None) -> bool:
        """Look now? Only while some task is due so soon that it may be one of them."""
        is_near = next_due is not None and next_due <= now + LONGEST_WAIT
        return is_near and now >= self._next_look

    def adopt(self, store: Store) -> int:
        """Make those that we know READY; return how many."""
        return store.adopt(LONGEST_WAIT, self._is_ours)

    def looked(self, now: float) -> None:
        if self._new_until is None:
            self._new_until = now + NEW
        self._next_look = now + (LOOK if now < self._new_until else LATER_LOOK)

    def found(self, now: float) -> None:
        """Look often again: where there was one, more may come."""
        self._new_until = now + NEW
        self._next_look = min(self._next_look, now + LOOK)

    def _is_ours(self, queue: str, name: str) -> bool:
        return find_definition(name) is not None and serves(self._queues, queue)
