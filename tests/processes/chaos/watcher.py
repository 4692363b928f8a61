"""Looks at the database during a run: for how long do the dead hold tasks?"""

from __future__ import annotations

import os
import threading
import time
import traceback

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
        #: Looks that came to an answer, and what ended the watch before its time.
        self.looks = 0
        self.failure = ""
        #: The time in which somebody could have taken a task back, and its count when
        #: a task was first seen to be held.
        self._clock = 0.0
        self._since: dict[tuple[str, int], float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join(40)

    def problems(self) -> list[str]:
        """Return why what it says is worth nothing, if it is."""
        return [self.failure, "" if self.looks else "it never had a look"]

    def _run(self) -> None:
        last = time.monotonic()
        try:
            while not self._stop.wait(LOOK):
                now = time.monotonic()
                self.look(last, now)
                last = now
        except Exception:
            self.failure = traceback.format_exc(limit=-3)
        finally:
            connection.close()

    def look(self, last: float, now: float) -> None:
        """Note what the dead hold; an outage stops the clock, and forgets nothing."""
        self.load = max(self.load, os.getloadavg()[0])
        try:
            held = self._held_by_the_dead()
        except (DatabaseError, InterfaceError):
            connection.close()
            return
        self.looks += 1
        if held is not None:
            self._clock += now - last - self.journal.away(last, now)
            self._note(held)

    def _held_by_the_dead(self) -> set[tuple[str, int]] | None:
        """Return (id, lease) of such tasks; None when nobody can take them back."""
        alive = set(
            Worker.objects.filter(expires_at__gt=get_store().now()).values_list(
                "id", flat=True
            )
        )
        if not alive:
            return None
        running = Task.objects.filter(state=State.RUNNING)
        rows = running.values_list("id", "lease", "worker_id")
        return {(str(id_), lease) for id_, lease, worker in rows if worker not in alive}

    def _note(self, held: set[tuple[str, int]]) -> None:
        self._since = {key: self._since.get(key, self._clock) for key in held}
        waits = [self._clock - since for since in self._since.values()]
        self.longest = max([self.longest, *waits])
