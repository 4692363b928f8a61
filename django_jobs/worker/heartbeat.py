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

from django_jobs import events
from django_jobs.conf import conf
from django_jobs.store import Store
from django_jobs.worker.outage import Outage, is_trouble

logger = logging.getLogger("django_jobs")

#: How often to look for revocations while something runs, in seconds.
REVOKE_CHECK = 0.5


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
        renewed: Callable[[str, float, bool], None],
        revoked: Callable[[list[str]], None],
        outage: Outage,
    ) -> None:
        self.store = store
        self.turn = turn
        self.interval = interval
        self.lease = lease
        self.worker_id = ""
        self.state = "running"
        #: How many tasks run; the loop keeps it up to date.
        self.running = 0
        self._renewed = renewed
        self._revoked = revoked
        self._outage = outage
        self._stop = threading.Event()
        self._hint = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
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
        next_beat = time.monotonic() + self.interval
        while not self._stop.is_set():
            until = next_beat - time.monotonic()
            if self.running:
                until = min(until, REVOKE_CHECK)
            self._hint.wait(max(0.0, until))
            self._hint.clear()
            if self.running:
                self._guarded(self._look, REVOKE_CHECK)
            if time.monotonic() >= next_beat:
                self._guarded(self._beat, self.interval)
                # Jitter: workers started together must not beat together.
                pause = self.interval * random.uniform(0.9, 1.0)  # noqa: S311
                next_beat = time.monotonic() + pause
        connections[self.store.alias].close()

    def _guarded(self, call: Callable[[], None], every: float) -> None:
        try:
            call()
        except Exception as error:
            if is_trouble(error):
                self._outage.failed(self, error, every)
            else:
                events.log(logger, logging.WARNING, "heartbeat_failed", exc_info=True)
            connections[self.store.alias].close()
        else:
            self._outage.succeeded(self)

    def _beat(self) -> None:
        # The lease counts from before the statement: its answer may take long.
        asked = time.monotonic()
        worker_id = self.worker_id
        with self.turn:
            is_ours = self.store.renew(
                worker_id, self.lease, state=self.state, running=self.running
            )
        self._renewed(worker_id, asked, is_ours)

    def _look(self) -> None:
        ids = self.store.revoke_requests(self.worker_id)
        if ids:
            self._revoked(ids)
