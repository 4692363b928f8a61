"""Who the worker is: its row, its lease, and what it does when it lost that.

A worker that cannot renew its lease stops its children before others may take their
tasks, and starts anew under another id (a UUID is never used twice).
"""

from __future__ import annotations

import logging
import os
import socket
import time
import uuid
from collections.abc import Callable

from django_jobs import __version__
from django_jobs.conf import conf
from django_jobs.failpoints import reach
from django_jobs.records import NewWorker
from django_jobs.store import Store
from django_jobs.worker import processes
from django_jobs.worker.completer import Completer, Job
from django_jobs.worker.options import WorkerOptions, kind_of
from django_jobs.worker.watchdog import PAUSE

logger = logging.getLogger("django_jobs")

#: Part of the lease after which a worker without an answer gives up its tasks.
FENCE = 2 / 3
#: Heartbeats after which it does so where its lock may tell that it is dead, and
#: after which the others may then act.
LOCK_FENCE = 1.6
LOCK_GRACE = 2.0


class Identity:
    """The worker's present id and lease; ``registered`` is called with each new one."""

    def __init__(
        self,
        options: WorkerOptions,
        completer: Completer,
        registered: Callable[[NewWorker], None],
    ) -> None:
        self.options = options
        self.worker = _introduce(options)
        self.is_registered = False
        #: How old the latest sign of life may become, in seconds.
        self.fence = FENCE * conf().LEASE
        #: What the database calls itself; the loop must not ask it.
        self.database_kind = ""
        self._completer = completer
        self._registered = registered
        #: When the latest sign of life was asked for, monotonic.
        self.renewed_at = float("inf")
        self._looked_at = time.monotonic()
        #: The time between the last two looks, in seconds.
        self._paused = 0.0

    def register(self) -> None:
        """Take a fresh id and write its row, however long the database is away."""
        self.is_registered = False
        self.fence = FENCE * conf().LEASE
        self.worker = worker = _introduce(self.options)
        lease = conf().LEASE

        def write(store: Store) -> float:
            # The lease counts from before the statement: its answer may take long.
            asked = time.monotonic()
            reach("register.before")
            store.register(worker, lease)
            self.database_kind = kind_of(self.options.database)
            reach("register.after")
            return asked

        self._completer.submit(
            Job("register", write, lambda asked: self._is_written(worker, asked))
        )

    def _is_written(self, worker: NewWorker, asked: float) -> None:
        self.is_registered = True
        self.renewed_at = asked
        self._registered(worker)

    def shorten_fence(self) -> None:
        """Give up sooner from now on: others may take us for dead sooner."""
        self.fence = min(self.fence, LOCK_FENCE * conf().HEARTBEAT)

    @property
    def doubtful_at(self) -> float:
        """When ``is_doubtful`` is true if nothing is heard until then, monotonic."""
        return self.renewed_at + self.fence

    def renewed(self, worker_id: str, asked: float, is_ours: bool) -> bool:
        """Note the answer to a heartbeat; False when the lease is lost."""
        if worker_id != self.worker.id:
            return True  # about an identity we gave up already
        if is_ours:
            self.renewed_at = asked
        return is_ours

    def is_doubtful(self, now: float) -> bool:
        """Is the lease so old that others may soon take our tasks?

        Also after a pause of this process: its clock went on while it did not. To be
        asked at least every second.
        """
        self._paused, self._looked_at = now - self._looked_at, now
        since = now - self.renewed_at
        if self._completer.store.has_single_writer:
            # An own task may keep the database locked for long. So nobody can take
            # our tasks either, and only a pause of this process is a reason.
            since = min(since, self._paused)
        return self.is_registered and since > self.fence

    def costly_pause(self, now: float) -> float:
        """Return how long this process was paused, if that has cost it the lease, or 0.

        The loop had not come to look, and without that the lease would do.
        """
        paused = max(self._paused, now - self._looked_at)
        has_cost_it = now - self.renewed_at - paused <= self.fence
        return paused if paused > PAUSE and has_cost_it else 0.0


def _introduce(options: WorkerOptions) -> NewWorker:
    return NewWorker(
        id=str(uuid.uuid4()),
        name=options.name[:200],
        host=socket.gethostname()[:255],
        pid=os.getpid(),
        boot=processes.boot(),
        pid_start=processes.pid_start(os.getpid()),
        version=__version__,
        queues=options.describe_queues(),
        processes=options.processes,
        threads=options.threads,
        coroutines=options.coroutines,
    )
