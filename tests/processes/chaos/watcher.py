"""Looks at the database during a run: for how long do the dead hold tasks?"""

from __future__ import annotations

import os
import threading
import time

from django.db import DatabaseError, InterfaceError, connection

from django_jobs.models import Task, Worker
from django_jobs.states import State
from django_jobs.store import get_store
from tests.processes.chaos.journal import Journal

#: Seconds between two looks.
LOOK = 0.25


class Watcher:
    """A thread with a connection that no fault is aimed at."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        #: The longest that a task was held after its worker's lease was over, while
        #: there was a worker alive and a database in reach.
        self.longest = 0.0
        #: Processes that wanted to run at a time, at most: the load of the machine.
        self.load = 0.0
        self._since: dict[tuple[str, int], float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join(40)

    def _run(self) -> None:
        while not self._stop.wait(LOOK):
            try:
                held = self._held_by_the_dead()
            except (DatabaseError, InterfaceError):
                connection.close()
                held = None
            self._note(held)
        connection.close()

    def _held_by_the_dead(self) -> set[tuple[str, int]] | None:
        """Return (id, lease) of such tasks; None when nobody can take them back."""
        alive = set(
            Worker.objects.filter(expires_at__gt=get_store().now()).values_list(
                "id", flat=True
            )
        )
        if not alive or self.journal.is_outage:
            return None
        running = Task.objects.filter(state=State.RUNNING)
        rows = running.values_list("id", "lease", "worker_id")
        return {(str(id_), lease) for id_, lease, worker in rows if worker not in alive}

    def _note(self, held: set[tuple[str, int]] | None) -> None:
        now = time.monotonic()
        self._since = {key: self._since.get(key, now) for key in held or ()}
        waits = [now - since for since in self._since.values()]
        self.longest = max([self.longest, *waits])
        self.load = max(self.load, os.getloadavg()[0])
