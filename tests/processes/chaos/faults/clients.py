"""Other clients of the database: they lock rows, read for long, or hold it up."""

from __future__ import annotations

import random
import threading
import time
from contextlib import suppress
from typing import Any

from django.db import DatabaseError, InterfaceError, connection, transaction

from tests.processes.chaos.faults import needs
from tests.processes.chaos.faults.base import Fault
from tests.processes.chaos.journal import Harm

#: Clients of a storm, and rows that each of them locks.
CLIENTS, ROWS = 3, 6


class Clients(Fault):
    """Threads with connections of their own that do something until the fault heals."""

    count = 1

    def strike(self) -> None:
        self.stop = threading.Event()
        self.threads = [
            threading.Thread(target=self._run, args=[random.Random(seed)], daemon=True)
            for seed in self.random.sample(range(10**6), self.count)
        ]
        for thread in self.threads:
            thread.start()

    def heal(self) -> None:
        self.stop.set()
        for thread in self.threads:
            thread.join(30)

    def _run(self, choice: random.Random) -> None:
        while not self.stop.is_set():
            with suppress(DatabaseError, InterfaceError):
                self.disturb(choice)
        with suppress(DatabaseError, InterfaceError):
            connection.close()

    def disturb(self, choice: random.Random) -> None:
        """Do it once; tell by ``has`` as soon as others may suffer from it."""
        raise NotImplementedError

    def has(self, what: object) -> None:
        """Count the strike, once, when something is locked or held."""
        if what and not self.record.hits:
            self.hit()


class DeadlockStorm(Clients):
    """Several clients update the queue's rows in any order, and hold on to them."""

    needs = (needs.network,)
    weight = 2
    lasts = (2.0, 5.0)
    count = CLIENTS

    def disturb(self, choice: random.Random) -> None:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(f"SELECT id FROM django_jobs_task LIMIT {10 * ROWS}")
            ids = [row[0] for row in cursor.fetchall()]
            for each in choice.sample(ids, min(ROWS, len(ids))):
                cursor.execute(
                    "UPDATE django_jobs_task SET summary = summary WHERE id = %s",
                    [each],
                )
                self.has(cursor.rowcount)
                time.sleep(choice.uniform(0, 0.02))
        self.stop.wait(0.005)


class RowLocks(Clients):
    """A client that does nothing holds locks on tasks and workers for seconds."""

    needs = (needs.network,)
    lasts = (1.0, 4.0)

    def disturb(self, choice: random.Random) -> None:
        with transaction.atomic(), connection.cursor() as cursor:
            for table in ("django_jobs_task", "django_jobs_worker"):
                cursor.execute(f"SELECT id FROM {table} LIMIT 30 FOR UPDATE")
                self.has(cursor.fetchall())
            self.stop.wait(10)


class OldSnapshot(Clients):
    """A transaction that reads keeps a snapshot, so that nothing is cleaned up."""

    needs = (needs.network,)
    lasts = (8.0, 20.0)
    is_background = True
    harm = Harm.NOBODY

    def disturb(self, choice: random.Random) -> None:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            cursor.execute("SELECT count(*) FROM django_jobs_task")
            self.has(cursor.fetchall())
            self.stop.wait(60)


class WriteLock(Clients):
    """A client holds the write lock of SQLite for seconds."""

    needs = (needs.single_writer,)
    weight = 2
    lasts = (1.0, 5.0)
    is_outage = True

    def disturb(self, choice: random.Random) -> None:
        with transaction.atomic():  # IMMEDIATE
            self.has(connection.in_atomic_block)
            self.stop.wait(10)


class KillCheckpoint(Fault):
    """kill -9 of clients of SQLite that copy the log into the database."""

    needs = (needs.single_writer,)
    weight = 3
    harm = Harm.NOBODY

    def strike(self) -> None:
        for _ in range(self.random.randint(1, 4)):
            process = self.site.start_checkpoints()
            self.site.wait(self.random.uniform(0.1, 0.6))
            process.kill()
            process.wait()
            self.site.counts["killed_checkpoints"] += 1
            self.hit()


FAULTS: list[Any] = [DeadlockStorm, RowLocks, OldSnapshot, WriteLock, KillCheckpoint]
