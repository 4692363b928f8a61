"""Tasks, workers and outcomes for the tests of the store."""

from __future__ import annotations

import time
from typing import Any
from uuid import uuid4

import pytest
from django.db import connections

from django_jobs.ids import uuid7
from django_jobs.models import Attempt, DeadLetter, Result, Task, Worker
from django_jobs.records import (
    ClaimedTask,
    Demand,
    ErrorRecord,
    NewTask,
    NewWorker,
    Outcome,
)
from django_jobs.states import Verdict
from django_jobs.store import Store

WORKER = "00000000-0000-4000-8000-000000000001"
OTHER_WORKER = "00000000-0000-4000-8000-000000000002"
ERROR = ErrorRecord("builtins.ValueError", "no", "Traceback ...", "0123456789abcdef")


on_both = pytest.mark.django_db(transaction=True, databases=["default", "other"])


def new_task(**changes: Any) -> NewTask:
    task = NewTask(str(uuid7()), "app.tasks.do", "default", 0, "[1]", "{}", "1", 3)
    return task._replace(**changes)


def new_worker(**changes: Any) -> NewWorker:
    worker = NewWorker(
        str(uuid4()), "label", "host", 7, "boot", "77", "1.0", "default", 2, 1, 10
    )
    return worker._replace(**changes)


def insert(store: Store, count: int = 1, **changes: Any) -> list[str]:
    """Insert tasks; return their ids in the order of their claim."""
    tasks = [new_task(**changes) for _ in range(count)]
    store.insert(tasks)
    return [task.id for task in tasks]


def be_alive(store: Store, worker: str = WORKER) -> None:
    """Register a worker with a long lease, unless it has a row: who has none gets no
    tasks.
    """
    if not Worker.objects.using(store.alias).filter(pk=worker).exists():
        store.register(new_worker(id=worker), 3600.0)


def die(store: Store, worker: str = WORKER) -> None:
    """Have the lease of a worker be over."""
    store.expire_workers([worker])


def claim(
    store: Store, limit: int = 10, worker: str = WORKER, **changes: Any
) -> list[ClaimedTask]:
    be_alive(store, worker)
    return store.cycle(worker, [], Demand(limit, **changes)).claimed


def claim_new(store: Store, count: int = 1, **changes: Any) -> list[ClaimedTask]:
    insert(store, count, **changes)
    return claim(store, count)


def outcome(
    task: ClaimedTask, verdict: Verdict = Verdict.SUCCESSFUL, **changes: Any
) -> Outcome:
    now = time.monotonic()
    told = Outcome(task.id, task.lease, verdict, now - 0.002, now - 0.001)
    return told._replace(**changes)


def complete(
    store: Store,
    task: ClaimedTask,
    verdict: Verdict = Verdict.SUCCESSFUL,
    worker: str = WORKER,
    **changes: Any,
) -> list[str]:
    """Complete one task; return the ids that were stale."""
    return store.cycle(worker, [outcome(task, verdict, **changes)], None).stale


def places(task_id: str) -> list[str]:
    """Return the tables that have a row of this id."""
    tables = (Task, Result, DeadLetter)
    return [each.__name__ for each in tables if each.objects.filter(pk=task_id)]


def verdicts(task_id: str) -> list[str]:
    """Return the verdicts of the attempts that were kept."""
    kept = Attempt.objects.filter(task_id=task_id).order_by("number", "id")
    return list(kept.values_list("verdict", flat=True))


def set_by_hand(
    store: Store,
    key: str,
    column: str,
    value: object,
    sql: str = "%s",
    table: str = "task",
) -> None:
    """Write what nobody of ours would into a row, past all checks there may be."""
    connection = connections[store.alias]
    with connection.cursor() as cursor:
        if connection.vendor == "mysql":
            cursor.execute("SET SESSION sql_mode = ''")
        cursor.execute(
            f"UPDATE django_jobs_{table} SET {column} = {sql} WHERE id = %s",
            [value, store.to_id(key)],  # type: ignore[attr-defined]
        )
        assert cursor.rowcount == 1
    if connection.vendor == "mysql":
        connection.close()  # and the mode with it
