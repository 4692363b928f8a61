"""The parent's database threads: they complete and claim while the parent goes on.

A job is tried until it succeeds: no fault of the database loses an outcome or ends
the worker. Everything comes back to the parent's loop as a value.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

from django.db import connections

from django_jobs import events
from django_jobs.store import Store
from django_jobs.store.connecting import close_unless_whole, connected, give_up
from django_jobs.store.errors import is_contended, is_not_migrated
from django_jobs.worker.outage import (
    LONGEST_PAUSE,
    Outage,
    is_trouble,
    missing_tables,
    pause_after,
    survived,
)
from django_jobs.worker.watchdog import DEADLINE, Watch, Watchdog, lengthened

logger = logging.getLogger("django_jobs")

#: Longest wait after a fault of ours, which no waiting ends, in seconds.
LONGEST_WAIT = 10.0
#: So many failures of a job by conflicts and locks are nothing to speak of.
USUAL_CONFLICTS = 2


@dataclass(slots=True)
class Job:
    """Something to do on the database, and what to do with its answer."""

    name: str
    work: Callable[[Store], Any]
    finish: Callable[[Any], None]
    #: A vital job is repeated until it succeeds, another only tried.
    is_vital: bool = True
    #: Called instead of ``finish`` when a job that is not vital failed.
    failed: Callable[[], None] | None = None
    started: float = field(default_factory=time.monotonic)
    failures: int = 0
    #: An answer was lost, perhaps: what it did may have been committed.
    is_doubtful: bool = False
    error: BaseException | None = None
    answer: Any = None

    @property
    def who(self) -> object:
        """Who has trouble: of a job that is only tried, the next one too."""
        return id(self) if self.is_vital else self.name


class Completer:
    """Threads with a connection each; ``done`` is called in them as a job ends."""

    def __init__(self, store: Store, done: Callable[[Job], None]) -> None:
        self.store = store
        #: Writers of a database whose waiting is unfair take turns.
        self.turn = threading.Lock() if store.has_single_writer else nullcontext()
        self.in_flight = 0
        self.is_failing = False
        #: Is the database away? Others who speak to it note that here, too.
        self.outage = Outage(store.alias, first="connection_lost")
        #: Does it answer, but only that others are in the way?
        self.contention = Outage(
            store.alias,
            "database_contended",
            "database_uncontended",
            logging.WARNING,
        )
        #: Does it answer, but lack a table or a column?
        self.unmigrated = missing_tables(store.alias)
        #: Ends calls that nobody answers; those of others who speak to it, too.
        self.watchdog = Watchdog()
        self._done = done
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._hurry = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, name=f"database-{number}", daemon=True)
            for number in range(store.cycles_in_flight)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    @property
    def is_free(self) -> bool:
        return self.in_flight < len(self._threads)

    def submit(self, job: Job) -> None:
        """Hand a job over; called by the parent's loop only."""
        self.in_flight += 1
        self._jobs.put(job)

    def finish(self, job: Job) -> None:
        """Take the answer of a job that came back; called by the parent's loop."""
        self.in_flight -= 1
        if job.error is None:
            job.finish(job.answer)
        elif job.failed is not None:
            job.failed()

    def close(self, timeout: float) -> None:
        """End the threads; a job that fails now is given up."""
        self._hurry.set()
        self.outage.close()
        for _ in self._threads:
            self._jobs.put(None)
        until = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    # -- in the threads --------------------------------------------------------------

    def _run(self) -> None:
        watch = self.watchdog.watch(self.store.alias)
        while (job := self._jobs.get()) is not None:
            self._attempt_until_done(job, watch)
            self._done(job)
        connections[self.store.alias].close()

    def _attempt_until_done(self, job: Job, watch: Watch) -> None:
        while True:
            deadline = lengthened(DEADLINE, job.failures)
            try:
                connection = connections[self.store.alias]
                with self.turn, watch.call(job.name, connection, deadline=deadline):
                    connected(connection)
                    job.answer = job.work(self.store)
            except Exception as error:
                with survived(self._hurry.wait):
                    self._after_failure(job, error)
                if job.error is not None:
                    return
            else:
                with survived(self._hurry.wait):
                    self._after_success(job)
                return

    def _after_failure(self, job: Job, error: Exception) -> None:
        job.failures += 1
        job.is_doubtful |= not is_contended(error)
        if not job.is_vital or self._hurry.is_set():
            job.error = error
        if is_contended(error):
            close_unless_whole(connections[self.store.alias])
        else:
            # Whatever state the connection is in, a new one is in a better one.
            give_up(connections[self.store.alias])
        is_passing = is_trouble(error) or is_contended(error) or is_not_migrated(error)
        wait = pause_after(job.failures, LONGEST_PAUSE if is_passing else LONGEST_WAIT)
        self._say_failed(job, error, wait)
        if job.error is not None:
            self.outage.gave_up(job.who)
            self.contention.gave_up(id(job))
        elif is_trouble(error):
            self.outage.wait(job.failures)
        else:
            self._hurry.wait(wait)

    def _say_failed(self, job: Job, error: Exception, wait: float) -> None:
        """Log a failure, while it is being handled, unless that is known."""
        if is_trouble(error):
            self.outage.failed(job.who, error, wait)
        elif is_contended(error):
            if job.failures > USUAL_CONFLICTS:
                self.contention.failed(id(job), error, wait)
        elif is_not_migrated(error):
            self.unmigrated.failed(job.who, error, wait)
        elif not self.is_failing:
            self.is_failing = True
            events.log(
                logger, logging.ERROR, "database_failing", exc_info=True, job=job.name
            )

    def _after_success(self, job: Job) -> None:
        self.outage.succeeded(job.who)
        self.contention.succeeded(id(job))
        self.unmigrated.succeeded(job.who)
        if self.is_failing:
            self.is_failing = False
            events.log(
                logger,
                logging.WARNING,
                "database_back",
                job=job.name,
                failures=job.failures,
            )
