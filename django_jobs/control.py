"""What people do to the queue: revoke, requeue, prune, look."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from django.db import connections, transaction

from django_jobs.conf import conf
from django_jobs.exceptions import TaskNotFound, seconds
from django_jobs.ids import canonical
from django_jobs.records import AttemptLine, TaskLine, TaskRecord, WorkerLine
from django_jobs.states import State
from django_jobs.store import Store
from django_jobs.store.tables import migrated_store

Id = str | UUID

#: Rows that are deleted in one transaction.
_PRUNED_AT_ONCE = 1000


class Status(NamedTuple):
    """The queue at a glance."""

    #: The database's time.
    now: datetime
    #: Live tasks per queue and state.
    queues: dict[str, dict[str, int]]
    workers: list[WorkerLine]
    dead_letters: int
    #: Seconds that the oldest READY task has been due; None when none is.
    oldest_ready: float | None


class Details(NamedTuple):
    """All that is known of one task."""

    task: TaskRecord
    attempts: list[AttemptLine]


def revoke(ids: Iterable[Id], alias: str | None = None) -> dict[str, str]:
    """Stop tasks; return per id "revoked", "requested" (it runs) or "finished"."""
    with migrated_store(alias) as store:
        answers = store.revoke(_canonical(ids))
    if "requested" in answers.values():
        _wake_up_after_commit(store)
    return answers


def requeue(ids: Iterable[Id], alias: str | None = None) -> list[str]:
    """Put dead letters back to work under their ids; return which were dead letters."""
    with migrated_store(alias) as store:
        found = store.requeue(_canonical(ids))
    if found:
        _wake_up_after_commit(store)
    return found


def find_dead_letters(
    *,
    queue: str | None = None,
    name: str | None = None,
    error: str | None = None,
    alias: str | None = None,
) -> list[str]:
    """Return the ids of dead letters, the oldest first.

    ``error`` is the path of an exception's class, or its last part.
    """
    found: list[str] = []
    with migrated_store(alias) as store:
        while batch := store.find_dead_letters(
            queue_name=queue, name=name, error=error, after=found[-1] if found else None
        ):
            found += batch
    return found


def prune(older_than: float | timedelta | None = None, alias: str | None = None) -> int:
    """Delete results and dead letters past their retention; return how many.

    With ``older_than`` seconds since they finished, whatever their retention.
    """
    age = None if older_than is None else seconds(older_than)
    count = 0
    with migrated_store(alias) as store:
        while deleted := store.prune(_PRUNED_AT_ONCE, older_than=age):
            count += deleted
    return count


def count_prunable(
    older_than: float | timedelta | None = None, alias: str | None = None
) -> int:
    """Return how many ``prune`` would delete now."""
    age = None if older_than is None else seconds(older_than)
    with migrated_store(alias) as store:
        return store.count_prunable(older_than=age)


def list_tasks(
    *,
    state: str | None = None,
    queue: str | None = None,
    name: str | None = None,
    limit: int = 100,
    alias: str | None = None,
) -> list[TaskLine]:
    """Return tasks, the newest first; ValueError for a state that there is none of."""
    wanted = None if state is None else State(state.upper())
    with migrated_store(alias) as store:
        return store.find(state=wanted, queue_name=queue, name=name, limit=limit)


def show(task_id: Id, alias: str | None = None) -> Details:
    """Return all that is known of a task; TaskNotFound when there is none."""
    key = canonical(task_id)
    with migrated_store(alias) as store:
        record = None if key is None else store.fetch(key)
        if key is None or record is None:
            raise TaskNotFound(f"no task has the id {str(task_id)!r}")
        return Details(record, store.attempts(key))


def status(alias: str | None = None) -> Status:
    """Return how much there is to do, and who does it."""
    queues: dict[str, dict[str, int]] = {}
    with migrated_store(alias) as store:
        for (queue, state), count in sorted(store.depths().items()):
            queues.setdefault(queue, {})[state] = count
        backlog = store.backlog()
        return Status(
            now=store.now(),
            queues=queues,
            workers=store.workers(),
            dead_letters=backlog.dead_letters,
            oldest_ready=backlog.oldest_ready,
        )


def _wake_up_after_commit(store: Store) -> None:
    def wake_up() -> None:
        # Still open in a test case that plays the commit.
        if not connections[store.alias].in_atomic_block:
            store.notify()

    if store.can_notify and conf().NOTIFY:
        transaction.on_commit(wake_up, using=store.alias, robust=True)


def _canonical(ids: Iterable[Id]) -> list[str]:
    """Return the ids that are ids; others cannot be those of a task."""
    return [key for each in ids if (key := canonical(each)) is not None]
