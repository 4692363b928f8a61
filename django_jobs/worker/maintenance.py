"""The chores that any worker does for all: rescue and prune.

There is no leader. Rescue is safe to be done by several at once; who prunes next is
picked by a compare-and-set in the database.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django_jobs import events
from django_jobs.store import Store
from django_jobs.worker import processes

logger = logging.getLogger("django_jobs")

#: Rows per statement, so that no statement takes long.
PRUNE_BATCH = 1000
RESCUE_BATCH = 500
#: Seconds between two rounds of pruning, for all workers together.
PRUNE_EVERY = 60.0


@dataclass(slots=True)
class Chore:
    """Something to do every so often; ``work`` runs in a database thread."""

    name: str
    every: float
    #: Returns whether there is more to do at once.
    work: Callable[[Store], bool]
    due: float = 0.0

    def put_off(self, *, has_more: bool = False) -> None:
        pause = 0.0 if has_more else self.every * random.uniform(0.9, 1.1)  # noqa: S311
        self.due = time.monotonic() + pause


def chores(lease: float) -> list[Chore]:
    """Return the chores of a worker, due at once and then at their own pace."""
    return [
        Chore("rescue", min(5.0, lease / 3), rescue),
        Chore("prune", PRUNE_EVERY, _Pruner()),
    ]


def rescue(store: Store) -> bool:
    """Take back a batch of what dead workers held; True when there may be more."""
    expire_dead_neighbours(store)
    ids = store.rescue(RESCUE_BATCH)
    if ids:
        _say("rescued", ids, tasks=len(ids))
    return len(ids) == RESCUE_BATCH


def expire_dead_neighbours(store: Store) -> None:
    """End the leases of workers of this host whose process is gone.

    Their leases would run out anyway; this spares their tasks the wait. The start
    time of the process guards against a number that was given to another one.
    """
    boot = processes.boot()
    if not boot:
        return
    dead = [
        worker_id
        for worker_id, pid, started in store.workers_of_host(boot)
        if started and processes.pid_start(pid) != started
    ]
    if dead:
        _say("workers_dead", dead, workers=len(dead))
        store.expire_workers(dead)


def _say(event: str, ids: list[str], **count: Any) -> None:
    """Log how many are concerned, and which; of many only the first."""
    more = len(ids) - events.MOST_IDS
    named = ids[: events.MOST_IDS] + ([f"+{more}"] if more > 0 else [])
    events.log(logger, logging.WARNING, event, **count, ids=named)


class _Pruner:
    """Deletes what is past its retention, a batch at a time while there is more."""

    def __init__(self) -> None:
        self._has_more = False

    def __call__(self, store: Store) -> bool:
        if not self._has_more and not store.claim_chore("prune", PRUNE_EVERY):
            return False
        count = store.prune(PRUNE_BATCH)
        if count:
            events.log(logger, logging.INFO, "pruned", tasks=count)
        self._has_more = count == PRUNE_BATCH
        return self._has_more
