"""The tasks of a run. Each tells of its start and its end in a file."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django_jobs import TaskContext, task
from tests.processes.chaos.audit import note_run
from tests.processes.chaos.models import Effect

#: Seconds for a task that uses the database, which may never answer.
LIMIT = 10
#: Ends the key of a task that an atomic task enqueues.
CHILD = "+"


#: The key of a task, and the lease of the run that returned it.
Answer = list[str | int]


def claimed_by(context: TaskContext, key: str) -> Answer:
    return [key, context.claimed.lease]


@contextmanager
def told(context: TaskContext, key: str) -> Iterator[None]:
    claimed = context.claimed
    note_run("start", key, claimed.lease, claimed.attempt)
    try:
        yield
    except BaseException:
        note_run("raise", key, claimed.lease, claimed.attempt)
        raise
    note_run("end", key, claimed.lease, claimed.attempt)


@task(takes_context=True)
def plain(context: TaskContext, key: str) -> Answer:
    with told(context, key):
        return claimed_by(context, key)


@task(takes_context=True, time_limit=5)
def sleep(context: TaskContext, key: str, seconds: float) -> Answer:
    with told(context, key):
        time.sleep(seconds)
        return claimed_by(context, key)


@task(takes_context=True)
async def coroutine(context: TaskContext, key: str, seconds: float) -> Answer:
    with told(context, key):
        await asyncio.sleep(seconds)
        return claimed_by(context, key)


@task(takes_context=True, max_attempts=3, backoff=[0.1])
def flaky(context: TaskContext, key: str) -> Answer:
    with told(context, key):
        if context.attempt == 1:
            raise ConnectionError("not at the first attempt")
        return claimed_by(context, key)


@task(takes_context=True, max_attempts=2, backoff=[0.1])
def doomed(context: TaskContext, key: str) -> None:
    with told(context, key):
        raise ValueError("never")


@task(takes_context=True)
def deadly(context: TaskContext, key: str) -> None:
    """Kill its process, and what else runs in it, every time."""
    with told(context, key):
        os.kill(os.getpid(), signal.SIGKILL)


#: A fault of the database is a failure of these, and they are to succeed in the end.
PATIENT: dict[str, Any] = {"max_attempts": 12, "backoff": [0.5]}


@task(takes_context=True, atomic=True, time_limit=LIMIT, **PATIENT)
def atomic(context: TaskContext, key: str) -> Answer:
    with told(context, key):
        Effect.objects.create(key=key, lease=context.claimed.lease)
        return claimed_by(context, key)


@task(takes_context=True, atomic=True, time_limit=LIMIT, **PATIENT)
def outbox(context: TaskContext, key: str) -> Answer:
    """Enqueue another task, which exists if and only if this one succeeds."""
    with told(context, key):
        Effect.objects.create(key=key, lease=context.claimed.lease)
        plain.enqueue(key + CHILD)
        return claimed_by(context, key)


@task(takes_context=True, result_retention=1)
def fleeting(context: TaskContext, key: str) -> Answer:
    """Its result is pruned during the run."""
    with told(context, key):
        return claimed_by(context, key)


#: What is answered to whom wants to revoke a task that is not there.
MISSING = "missing"
#: Time limits by name.
LIMITED = {each.name: each.options.time_limit for each in (sleep, atomic, outbox)}
#: A task of a release that is gone: no worker knows it.
FORGOTTEN = "tests.processes.chaos.released.forgotten"
#: Tasks whose effects must happen once.
ATOMIC = (atomic.name, outbox.name)
