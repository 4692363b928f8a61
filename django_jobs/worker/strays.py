"""Tasks that other workers gave back because they do not know them, as during a deploy.

Left to chance, the worker that gave one back claims it again as often as not. So
whoever knows such a task takes it at once, before it is due again.
"""

from __future__ import annotations

from django_jobs.definitions import find_definition
from django_jobs.store import Store
from django_jobs.worker.options import WorkerOptions, serves

#: Seconds after which a task that a worker does not know may be claimed again, give or
#: take a half.
UNKNOWN_WAIT = 5.0
LONGEST_WAIT = 1.5 * UNKNOWN_WAIT
#: Look for them at most so often, in seconds.
LOOK = 0.5


class Strays:
    """When to look for such tasks, and which of them are ours."""

    def __init__(self, options: WorkerOptions) -> None:
        self._queues = options.describe_queues()
        self._next_look = 0.0

    def is_due(self, now: float, next_due: float | None) -> bool:
        """Look now? Only while some task is due so soon that it may be one of them."""
        is_near = next_due is not None and next_due <= now + LONGEST_WAIT
        return is_near and now >= self._next_look

    def adopt(self, store: Store) -> int:
        """Make those that we know READY; return how many."""
        return store.adopt(LONGEST_WAIT, self._is_ours)

    def looked(self, now: float) -> None:
        self._next_look = now + LOOK

    def _is_ours(self, queue: str, name: str) -> bool:
        return find_definition(name) is not None and serves(self._queues, queue)
