"""The worker's sign of life, on a thread and a connection of its own.

It also asks which running tasks shall be revoked: both must be served however busy
the other connections are.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime, timedelta

from django.db import connections

from django_jobs.conf import conf
from django_jobs.failpoints import reach
from django_jobs.store import Store
from django_jobs.store.connecting import give_up
from django_jobs.store.errors import is_contended, is_not_migrated
from django_jobs.worker.outage import Outage, is_trouble, pause_after, survived
from django_jobs.worker.watchdog import Watch, lengthened

#: How often to look for revocations while something runs, in seconds.
REVOKE_CHECK = 0.5
#: Longest wait before what failed by a fault of ours is tried again, in seconds.
FAULT_PAUSE = 1.0


def is_overdue(seen_at: datetime, now: datetime) -> bool:
    """Tell whether a worker gave no sign of life for more than two intervals."""
    return now - seen_at > timedelta(seconds=2 * conf().HEARTBEAT)


class Heartbeat:
    """Renews the lease of the worker and reports how that went."""

    def __init__(
        self,
        store: Store,
        turn: AbstractContextManager[object],
        *,
        interval: float,
        lease: float,
        deadline: float,
        renewed: Callable[[str, float, bool], None],
        revoked: Callable[[list[str]], None],
        outage: Outage,
        unmigrated: Outage,
        watch: Watch,
    ) -> None:
        self.store = store
        self.turn = turn
        self.interval = interval
        self.lease = lease
        #: How long an answer may take, in seconds.
        self.deadline = deadline
        self.worker_id = ""
        self.state = "running"
        #: How many tasks run; the loop keeps it up to date.
        self.running = 0
        self._renewed = renewed
        self._revoked = revoked
        self._outage = outage
        self._unmigrated = unmigrated
        self._fault = Outage(
            store.alias, "heartbeat_failed", "heartbeat_back", logging.WARNING
        )
        self._watch = watch
        self._failures = 0
        self._next_beat = 0.0
        self._stop = threading.Event()
        self._hint = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self, asked: float) -> None:
        """Begin; the lease was first asked for at this time, monotonic."""
        self._next_beat = asked + self.interval
        self._thread.start()

    def set_running(self, count: int) -> None:
        """Note how many tasks run; the first one begins the looks for revocations."""
        is_first = count > 0 and not self.running
        self.running = count
        if is_first:
            self._hint.set()

    def look_for_revocations(self) -> None:
        """Look now: somebody said that there may be one."""
        self._hint.set()

    def close(self, timeout: float) -> None:
        self._stop.set()
        self._hint.set()
        if self._thread.is_alive():
            self._thread.join(timeout)

    # -- in the thread ---------------------------------------------------------------

    def _run(self) -> None:
        while not self._stop.is_set():
            with survived(self._stop.wait):
                self._turn()
        connections[self.store.alias].close()

    def _turn(self) -> None:
        self._wait()
        is_due = time.monotonic() >= self._next_beat
        if not (is_due or self.running):
            return
        if not self._call(is_due):
            # The next success shall be a sign of life: the lease runs out.
            self._next_beat = time.monotonic()
        elif is_due:
            # Jitter: workers started together must not beat together.
            pause = self.interval * random.uniform(0.9, 1.0)  # noqa: S311
            self._next_beat = time.monotonic() + pause

    def _wait(self) -> None:
        until = self._next_beat - time.monotonic()
        if self.running:
            until = min(until, REVOKE_CHECK)
        self._hint.wait(max(0.0, until))
        self._hint.clear()

    def _call(self, is_due: bool) -> bool:
        """Beat if that is due, look for revocations; False after a failure."""
        connection = connections[self.store.alias]
        deadline = lengthened(self.deadline, self._failures)
        try:
            with self._watch.call("heartbeat", connection, deadline=deadline):
                if is_due:
                    self._beat()
                if self.running:
                    self._look()
        except Exception as error:
            self._after_failure(error)
            return False
        self._failures = 0
        self._outage.succeeded(self)
        self._unmigrated.succeeded(self)
        self._fault.succeeded(self)
        return True

    def _after_failure(self, error: Exception) -> None:
        """Wait until it is time to try again."""
        self._failures += 1
        give_up(connections[self.store.alias])
        if is_trouble(error):
            self._outage.failed(self, error, pause_after(self._failures))
            self._outage.wait(self._failures)
            return
        pause = min(FAULT_PAUSE, self.interval / 3)
        if is_not_migrated(error):
            self._unmigrated.failed(self, error, pause)
        else:
            self._fault.failed(self, error, pause, exc_info=not is_contended(error))
        self._stop.wait(pause)

    def _beat(self) -> None:
        # The lease counts from before the statement: its answer may take long.
        asked = time.monotonic()
        worker_id = self.worker_id
        reach("heartbeat.before")
        with self.turn:
            is_ours = self.store.renew(
                worker_id, self.lease, state=self.state, running=self.running
            )
        reach("heartbeat.after")
        self._renewed(worker_id, asked, is_ours)

    def _look(self) -> None:
        ids = self.store.revoke_requests(self.worker_id)
        if ids:
            self._revoked(ids)
