"""The store: every read and write of queue rows, as one contract for all databases."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, ClassVar

from django.db import connections

from django_jobs.records import (
    AttemptLine,
    Backlog,
    Cycle,
    Demand,
    NewTask,
    NewWorker,
    Outcome,
    TaskLine,
    TaskRecord,
    WorkerLine,
)

#: Channel on which PostgreSQL tells workers that tasks came; one per database.
CHANNEL = "django_jobs"


class Store(ABC):
    """Reads and writes queue rows on one database alias.

    A method uses the calling thread's connection. Unless it says otherwise it is one
    transaction of its own; database errors pass through as Django raises them.
    """

    #: How many fused cycles one worker keeps in flight, each on its own connection.
    cycles_in_flight: ClassVar[int] = 2
    #: Can this database tell a worker that tasks came?
    can_notify: ClassVar[bool] = False
    #: Does ``changes`` tell it that something was committed?
    can_count: ClassVar[bool] = False
    #: Must the writers of one process take turns, because waiting is unfair?
    has_single_writer: ClassVar[bool] = False
    #: Options of the driver that give every call a deadline.
    DEADLINES: ClassVar[dict[str, int]] = {}

    def __init__(self, alias: str) -> None:
        self.alias = alias

    # -- producing ---------------------------------------------------------------

    @abstractmethod
    def insert(self, tasks: Sequence[NewTask], *, again: bool = False) -> datetime:
        """Insert tasks in the caller's transaction; return the database's time.

        READY, or SCHEDULED when they are due later. An id that is there already is
        left alone, so that a repeated insert does not double. ``again`` says that
        this is one: the tasks may even have run since.
        """

    # -- working -----------------------------------------------------------------

    @abstractmethod
    def cycle(
        self,
        worker_id: str,
        outcomes: Sequence[Outcome],
        demand: Demand | None,
        *,
        again: bool = False,
    ) -> Cycle:
        """Complete a batch and claim the next one, in one transaction.

        Outcomes whose lease is over are not written; their ids come back as stale.
        ``again`` says that this was tried before: whose row is locked then holds up
        none of the others, and comes back as locked.
        """

    @abstractmethod
    def complete_here(self, worker_id: str, outcome: Outcome) -> bool:
        """Complete one task inside the caller's transaction; False when stale."""

    @abstractmethod
    def promote(self, limit: int = 5000) -> int:
        """Make due SCHEDULED tasks READY; return how many."""

    @abstractmethod
    def adopt(
        self, within: float, is_ours: Callable[[str, str], bool], limit: int = 500
    ) -> int:
        """Make READY at once what other workers gave back as unknown to them.

        Of what is due next, within so many seconds, those whose queue and name are
        ours; returns how many. Only the nearest of a crowd are looked through: the
        others come nearer.
        """

    @abstractmethod
    def next_due(self) -> float | None:
        """Return the seconds until the next SCHEDULED task is due, None without one."""

    @abstractmethod
    def save_metadata(
        self,
        worker_id: str,
        task_id: str,
        lease: int,
        *,
        metadata: str | None = None,
        progress: str | None = None,
    ) -> bool:
        """Write a running task's metadata or progress; False when the lease is over."""

    # -- workers -----------------------------------------------------------------

    @abstractmethod
    def register(self, worker: NewWorker, lease: float) -> None:
        """Insert the worker's row, alive for ``lease`` seconds."""

    @abstractmethod
    def renew(
        self, worker_id: str, lease: float, *, state: str = "running", running: int = 0
    ) -> bool:
        """Prolong the lease; False when it was over (the row is gone or expired)."""

    @abstractmethod
    def is_alive(self, worker_id: str) -> bool:
        """Tell whether the worker has its lease: then nobody took a task from it."""

    @abstractmethod
    def sign_off(self, worker_id: str) -> int:
        """Give back what the worker still holds and delete its row; return how many."""

    @abstractmethod
    def workers_of_host(self, boot: str) -> list[tuple[str, int, str]]:
        """Return (id, pid, pid_start) of the workers registered from this boot."""

    @abstractmethod
    def expire_workers(self, worker_ids: Iterable[str]) -> None:
        """End the leases of workers whose process is known to be dead."""

    @abstractmethod
    def rescue(self, limit: int = 500) -> list[str]:
        """Take back what dead workers held; return the ids of the tasks.

        Each becomes READY with one crash more, or a dead letter when its crash budget
        is used up; an Attempt (CRASHED) is kept. Rows of dead workers that hold
        nothing any more are deleted.
        """

    @abstractmethod
    def held(self, worker_id: str) -> list[tuple[str, int]]:
        """Return (id, lease) of the tasks that are running as this worker's."""

    @abstractmethod
    def revoke_requests(self, worker_id: str) -> list[str]:
        """Return the ids of the worker's running tasks that shall stop."""

    def note_lock(self, worker_id: str, grace: float) -> bool:
        """Note that a session of the worker holds its lock; False when it does not.

        From here on the worker counts as dead as soon as the lock is gone and it has
        given no sign of life for the grace, in seconds. Only where there are locks.
        """
        return False

    def expire_unlocked(self) -> list[str]:
        """End the leases of workers that are silent and lost their locks."""
        return []

    # -- control -----------------------------------------------------------------

    @abstractmethod
    def revoke(self, ids: Sequence[str]) -> dict[str, str]:
        """Revoke tasks; return per id found "revoked", "requested" or "finished"."""

    @abstractmethod
    def requeue(self, ids: Sequence[str]) -> list[str]:
        """Put dead letters back to work, READY and with fresh budgets.

        Returns the ids that were dead letters. ``attempt`` and ``crashes`` start
        from 0 again, ``lease`` goes on. The Attempt rows stay as history: the time in
        their ``requeued_at`` tells them from those of the runs to come.
        """

    @abstractmethod
    def claim_chore(self, name: str, every: float) -> bool:
        """Compare-and-set: True for the one caller that is to do the chore now."""

    @abstractmethod
    def prune(self, limit: int = 1000, *, older_than: float | None = None) -> int:
        """Delete results and dead letters past their retention, with their attempts.

        ``older_than`` seconds since they finished overrides the retention. Returns
        how many were deleted; fewer than ``limit`` means that none is left.
        """

    # -- reading -----------------------------------------------------------------

    @abstractmethod
    def fetch(self, task_id: str) -> TaskRecord | None:
        """Return all that is known of a task, from the table it is in."""

    @abstractmethod
    def now(self) -> datetime:
        """Return the database's time, aware, in UTC."""

    @abstractmethod
    def depths(self) -> dict[tuple[str, str], int]:
        """Return the number of live tasks per (queue, state)."""

    # -- overview ----------------------------------------------------------------

    @abstractmethod
    def find(
        self,
        *,
        state: str | None = None,
        queue_name: str | None = None,
        name: str | None = None,
        limit: int = 100,
    ) -> list[TaskLine]:
        """Return tasks of all three tables, the newest first."""

    @abstractmethod
    def find_dead_letters(
        self,
        *,
        queue_name: str | None = None,
        name: str | None = None,
        error: str | None = None,
        after: str | None = None,
        limit: int = 1000,
    ) -> list[str]:
        """Return the ids of dead letters, the oldest first, from one id on.

        ``error`` is the path of an exception's class, or its last part; case matters.
        """

    @abstractmethod
    def count_prunable(self, *, older_than: float | None = None) -> int:
        """Return how many rows ``prune`` would delete without a limit."""

    @abstractmethod
    def attempts(self, task_id: str) -> list[AttemptLine]:
        """Return the attempts of a task that did not succeed, the oldest first."""

    @abstractmethod
    def workers(self) -> list[WorkerLine]:
        """Return the registered workers by name; some may have died."""

    @abstractmethod
    def backlog(self) -> Backlog:
        """Return what waits for a worker or for a person."""

    # -- connecting ----------------------------------------------------------------

    def set_deadlines(self) -> None:
        """Have connections made from now on notice a network that is gone.

        For the worker's parent: a call that never returns must not hold it for ever.
        What the project's own OPTIONS say is left alone.
        """
        options = connections.settings[self.alias].setdefault("OPTIONS", {})
        if options.get("pool"):
            # It hands out connections that are broken, and waits longer and longer
            # before it makes others.
            connection: Any = connections[self.alias]
            connection.close()
            connection.close_pool()
            del options["pool"]
        for name, value in self.DEADLINES.items():
            options.setdefault(name, value)

    def set_patience(self, seconds: float) -> None:  # noqa: B027 - not everywhere
        """Have connections made from now on notice by then that the server is gone.

        For the worker's children: not how long a statement takes, only that nobody is
        there who could answer. What the project's own OPTIONS say is left alone.
        """

    # -- wake-up -----------------------------------------------------------------

    def notify(self) -> None:  # noqa: B027 - nothing to do is an answer
        """Tell listening workers that there is work; nothing where none can listen."""

    def changes(self) -> int | None:
        """Return a number that differs after another connection's commit, or None.

        Cheap enough to ask a hundred times a second, where there is one.
        """
        return None
