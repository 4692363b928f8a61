"""The chores that any worker does for all: rescue and prune.

There is no leader. Both are safe to be done by several at once; who is next is picked
by a compare-and-set in the database, so that many workers do no more than one.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django_jobs import events
from django_jobs.failpoints import reach
from django_jobs.store import Store
from django_jobs.worker import processes

logger = logging.getLogger("django_jobs")

#: Rows per statement, so that no statement takes long.
PRUNE_BATCH = 1000
RESCUE_BATCH = 500
#: Seconds between two rounds of pruning, for all workers together.
PRUNE_EVERY = 60.0
#: Seconds between two looks of a worker for the dead: with what jitter and the loop of
#: an idle worker add, less than five after the end of a lease.
RESCUE_EVERY = 3.5
#: The same where locks tell who is dead: two heartbeats and this are twelve seconds.
FAST_RESCUE_EVERY = 1.0
#: Seconds between two batches: time for what waits for the database meanwhile, which is
#: all of the worker's exchange where there is one thread for it.
BREATH = 0.01
#: Part of that for which the look of one worker is enough for all. Less than what
#: jitter leaves: who is alone must never be told that it just looked itself.
FOR_ALL = 0.75


@dataclass(slots=True)
class Chore:
    """Something to do every so often; ``work`` runs in a database thread."""

    name: str
    every: float
    #: Returns whether there is more to do at once.
    work: Callable[[Store], bool]
    due: float = 0.0

    def put_off(self, *, has_more: bool = False) -> None:
        pause = BREATH if has_more else self.every * random.uniform(0.9, 1.1)  # noqa: S311
        self.due = time.monotonic() + pause


def chores(lease: float, *, has_locks: bool = False) -> list[Chore]:
    """Return the chores of a worker, due at once and then at their own pace."""
    every = min(RESCUE_EVERY, lease / 3)
    given = [
        Chore("rescue", every, _Rescuer(every * FOR_ALL)),
        Chore("prune", PRUNE_EVERY, _Pruner()),
    ]
    if has_locks:
        every = min(FAST_RESCUE_EVERY, every)
        given.append(Chore("fast_rescue", every, _FastRescuer(every * FOR_ALL)))
    return given


class _Rescuer:
    """Takes back what dead workers held, a batch at a time while there is more."""

    def __init__(self, every: float) -> None:
        self._every = every
        self._has_more = False

    def __call__(self, store: Store) -> bool:
        # What only a neighbour can see is looked for by each.
        must = expire_dead_neighbours(store) or self._has_more
        if not must and not store.claim_chore("rescue", self._every):
            return False
        self._has_more = _rescue(store)
        return self._has_more


class _FastRescuer:
    """Looks for workers that are silent and lost their locks."""

    def __init__(self, every: float) -> None:
        self._every = every

    def __call__(self, store: Store) -> bool:
        if not store.claim_chore("fast_rescue", self._every):
            return False
        dead = store.expire_unlocked()
        if dead:
            _say("workers_dead", dead, workers=len(dead))
            while _rescue(store):
                pass
        return False


def _rescue(store: Store) -> bool:
    """Take back a batch of what dead workers held; True when there may be more."""
    reach("rescue.before")
    ids = store.rescue(RESCUE_BATCH)
    if ids:
        reach("rescue.after")
        _say("rescued", ids, tasks=len(ids))
        store.notify()
    return len(ids) == RESCUE_BATCH


def expire_dead_neighbours(store: Store) -> bool:
    """End the leases of workers of this host whose process is gone, if there are any.

    Their leases would run out anyway; this spares their tasks the wait. The start
    time of the process guards against a number that was given to another one. Who may
    be alive is left alone: two would run the same task.
    """
    boot = processes.boot()
    if not boot:
        return False
    dead = [
        worker_id
        for worker_id, pid, started in store.workers_of_host(boot)
        if started and processes.is_gone(pid, started)
    ]
    if dead:
        _say("workers_dead", dead, workers=len(dead))
        store.expire_workers(dead)
    return bool(dead)


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
        reach("prune.before")
        count = store.prune(PRUNE_BATCH)
        if count:
            reach("prune.after")
            events.log(logger, logging.INFO, "pruned", tasks=count)
        self._has_more = count == PRUNE_BATCH
        return self._has_more
