"""A task's function called here and now, without the queue: ``.call()``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from asgiref.sync import async_to_sync, iscoroutinefunction, sync_to_async
from django.db import transaction

from django_jobs.context import TaskContext
from django_jobs.records import ClaimedTask, NewTask
from django_jobs.store import get_store


class Call(NamedTuple):
    """A function with its arguments; ``database``: it runs in a transaction there."""

    func: Callable[..., Any]
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    #: An alias, None without a transaction.
    database: str | None


def call(what: Call) -> Any:
    """Return what the function returns; what it raises rolls back and comes out."""
    if iscoroutinefunction(what.func):
        return async_to_sync(what.func)(*what.args, **what.kwargs)
    if what.database is None:
        return what.func(*what.args, **what.kwargs)
    with transaction.atomic(using=what.database):
        return what.func(*what.args, **what.kwargs)


async def acall(what: Call) -> Any:
    """Do as ``call``, without blocking the event loop."""
    if iscoroutinefunction(what.func):
        return await what.func(*what.args, **what.kwargs)
    return await sync_to_async(call)(what)


def alias_of(atomic: bool, database: str | None = None) -> str | None:
    """Return where the transaction of an atomic task is opened; None for others.

    That is ``database``, or the queue's own.
    """
    return get_store(database).alias if atomic else None


def context_of(task: NewTask) -> TaskContext:
    """Return the context of a task that is not in the queue; it writes nothing."""
    claimed = ClaimedTask(
        id=task.id,
        lease=0,
        attempt=1,
        crashes=0,
        max_attempts=task.max_attempts,
        name=task.name,
        queue_name=task.queue_name,
        priority=task.priority,
        args=task.args,
        kwargs=task.kwargs,
        metadata=task.metadata,
        headers=task.headers,
        time_limit=task.time_limit,
        is_expired=False,
    )
    return TaskContext(claimed, worker_id="")
