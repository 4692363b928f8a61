"""Tasks of every kind. Each run leaves a line in a file: its task and its lease."""

from __future__ import annotations

import os
import time

from django.db import transaction

from django_jobs import task
from django_jobs.models import Queue
from tests.processes.tasks import audit


def note(context, path: str) -> None:
    audit(path, f"{context.claimed.id} {context.claimed.lease}")


@task(takes_context=True)
def plain(context, path: str) -> None:
    note(context, path)


@task(takes_context=True)
async def coroutine(context, path: str) -> None:
    note(context, path)


@task(atomic=True, takes_context=True)
def atomic(context, path: str) -> None:
    """Have an effect on the queue's database: a row per run that was committed."""
    note(context, path)
    Queue.objects.create(name=f"{context.claimed.id} {context.claimed.lease}")


@task(takes_context=True)
def follow_up(context, path: str, cause: str) -> None:
    """What other tasks have enqueued, under the id of the one that did."""
    note(context, path)


@task(atomic=True, takes_context=True)
def enqueue_with(context, path: str) -> None:
    """Enqueue in the transaction that completes this task."""
    note(context, path)
    follow_up.enqueue(path, context.claimed.id)


@task(takes_context=True)
def enqueue_after(context, path: str) -> None:
    """Enqueue at the end of a transaction: not lost only because this runs again."""
    note(context, path)
    with transaction.atomic():
        follow_up.using(on_commit=True).enqueue(path, context.claimed.id)


@task(max_attempts=1, takes_context=True)
def fail(context, path: str) -> None:
    note(context, path)
    raise ValueError("this one always fails")


@task(max_attempts=3, backoff=[0.05], takes_context=True)
def fail_once(context, path: str) -> None:
    note(context, path)
    with open(path) as lines:
        if lines.read().count(context.claimed.id) == 1:
            raise ConnectionError("the first run fails")


@task(takes_context=True)
def hold(context, path: str, until: str) -> None:
    """Keep a process busy until a file is there, whoever asks it to leave."""
    note(context, path)
    while True:
        try:
            while not os.path.exists(until):
                time.sleep(0.01)
            return
        except BaseException:
            continue
