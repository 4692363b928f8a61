"""One worker after the other, for as long as a module of tests takes.

A worker takes longer to start than to be killed. So it is written down for each of
them what may happen at which point, once; nothing does before a test removes the file
that says it has happened. Whoever is alive in the end serves the next test.
"""

from __future__ import annotations

import itertools
import signal
from collections.abc import Iterable
from pathlib import Path

from django.db import connection

from django_jobs.failpoints import VARIABLE
from django_jobs.models import (
    Attempt,
    DeadLetter,
    Maintenance,
    Queue,
    Result,
    Task,
    Worker,
)
from tests.processes.failpoints.batch import Batch
from tests.processes.harness import WorkerProcess, wait_for
from tests.processes.proc import members

TABLES = (Task, Result, DeadLetter, Attempt, Queue, Worker, Maintenance)
#: Short, so that the next worker has not long to wait; not so short that a busy
#: machine lets it run out.
SETTINGS = {"JOBS_LEASE": "6", "JOBS_HEARTBEAT": "0.5", "JOBS_POLL": "0.1"}

#: Tasks that two children may run at a time: one each, and the coroutines of a batch.
SLOTS = 2 + 2
#: Reached by a child that has started a task, and not told anybody of its end.
IN_A_RUN = [
    *("child.mid_run", "child.after_run", "child.before_send"),
    *("atomic.before_complete", "atomic.after_complete"),
]


class Relay:
    """The worker of the moment, and what is to happen to it."""

    def __init__(
        self, env: dict[str, str], folder: Path, rules: Iterable[tuple[str, str]]
    ) -> None:
        self.folder = folder
        self.worker: WorkerProcess | None = None
        self._rules = list(rules)
        self._numbers = itertools.count(1)
        texts = [
            f"{point}={what},once={self.marker(point, what)}"
            for point, what in self._rules
        ]
        self.env = {
            **env,
            **SETTINGS,
            "JOBS_TEST_IMPORT": "tests.processes.failpoints.tasks",
            VARIABLE: ";".join(texts),
        }

    # -- the fault ---------------------------------------------------------------------

    def marker(self, point: str, what: str) -> Path:
        return self.folder / f"{point} {what}"

    def arm(self, point: str, what: str) -> None:
        """Let it happen, to the first who reaches the point from now on."""
        self.marker(point, what).unlink()

    def struck(self, point: str, what: str) -> int:
        """Wait until it has happened; return the id of the process that was there."""
        text = wait_for(
            lambda: self._read(self.marker(point, what)),
            words=f"{what} at {point}: {self.worker and self.worker.output()[-3000:]}",
        )
        return int(text.split()[-1])

    @staticmethod
    def _read(path: Path) -> str:
        return path.read_text() if path.exists() else ""

    # -- the worker --------------------------------------------------------------------

    def prepare(self) -> Batch:
        """Disarm everything, and begin with empty tables."""
        for point, what in self._rules:
            self.marker(point, what).write_text("disarmed 0")
        if Task.objects.exists() or (self.worker and self.worker.process.poll()):
            self.end()  # a test before this one has failed
        self._empty(table for table in TABLES if table is not Worker or not self.worker)
        return Batch(self.folder)

    def working(self) -> WorkerProcess:
        """Return the worker, with both of its children."""
        worker = self.worker or self.start()
        worker.children(2)
        return worker

    def start(self, *, ready: bool = True) -> WorkerProcess:
        log = self.folder / f"worker-{next(self._numbers)}.log"
        self.worker = WorkerProcess(self.env, log, "--processes", "2")
        if ready:
            self.worker.wait_until_ready()
        return self.worker

    def stop(self) -> None:
        """Stop it gracefully, if there is one; nothing of it may be left."""
        if self.worker is not None:
            pid = self.worker.pid
            self.worker.send(signal.SIGTERM)
            self.is_gone(0)
            # That of one before, which was killed, may be there: its lease runs.
            assert not Worker.objects.filter(pid=pid).exists()

    def is_gone(self, code: int) -> None:
        """Wait until the worker has ended, with its children and its connections."""
        assert self.worker is not None
        worker, self.worker = self.worker, None
        try:
            assert worker.wait() == code, worker.output()
            wait_for(lambda: not members(worker.pid), words="the children are gone")
            wait_for(lambda: not sessions(), words="the connections are gone")
        finally:
            worker.kill_everything()

    def finish(self, batch: Batch) -> int:
        """Have everything done, by a new worker if need be; check all of it."""
        if self.worker is None:
            self.start()
        assert self.worker is not None
        words = f"everything is done: {self.worker.log}"
        wait_for(batch.is_over, words=words)
        return batch.verify()

    def end(self) -> None:
        """Kill whatever there is, and forget its tasks."""
        if self.worker is not None:
            self.worker.kill_everything()
            self.worker = None
        self._empty(TABLES)

    @staticmethod
    def _empty(tables: Iterable[type]) -> None:
        for table in tables:
            table.objects.all().delete()  # type: ignore[attr-defined]


def sessions() -> int:
    """Count the connections of others to the database, if it can tell."""
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE pid <> pg_backend_pid() "
                "AND datname = current_database() AND backend_type = 'client backend'"
            )
        elif connection.vendor == "mysql":
            cursor.execute(
                "SELECT count(*) FROM information_schema.processlist "
                "WHERE db = DATABASE() AND id <> CONNECTION_ID()"
            )
        else:
            return 0
        return int(cursor.fetchone()[0])
