"""Tasks of Django's decorator, and receivers that write down its signals."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import django

if django.VERSION >= (6, 0):
    from django.tasks import TaskContext, task
    from django.tasks.signals import task_finished, task_started
else:
    from django_tasks import TaskContext, task
    from django_tasks.signals import task_finished, task_started


@task
def add(left: int, right: int = 0) -> int:
    return left + right


@task()
async def aadd(left: int, right: int = 0) -> int:
    return left + right


@task
def echo(*args: Any, **kwargs: Any) -> Any:
    return [list(args), kwargs]


@task
def fail() -> None:
    raise ValueError("This Task failed due to ValueError")


@task
async def afail() -> None:
    raise ValueError("This Task failed due to ValueError")


@task
def odd_value() -> Any:
    return lambda: True


@task(takes_context=True)
def tell(context: TaskContext, wanted: int) -> Any:
    assert isinstance(context, TaskContext)
    return [context.task_result.id, context.attempt == wanted]


@task(takes_context=True)
async def atell(context: TaskContext, wanted: int) -> Any:
    assert isinstance(context, TaskContext)
    return [context.task_result.id, context.attempt == wanted]


@task(takes_context=True)
def note(context: Any, **values: Any) -> Any:
    context.metadata.update(values)
    return context.metadata


@task(takes_context=True)
def note_and_fail(context: Any, **values: Any) -> None:
    context.metadata.update(values)
    raise ValueError("failed after it")


@task(takes_context=True)
async def anote(context: Any, **values: Any) -> Any:
    context.metadata.update(values)
    await context.asave_metadata()
    return context.task_result.metadata


@task(takes_context=True)
def note_nonsense(context: Any) -> None:
    context.metadata["nonsense"] = {1, 2}


@task(takes_context=True)
def save_halfway(context: Any) -> Any:
    context.metadata["half"] = True
    modified = context.metadata_modified
    context.save_metadata()
    context.progress(1, 2, "half")
    return [modified, context.metadata_modified, context.task_result.metadata]


@task(backend="foreign")
def travel() -> str:
    return "arrived"


def _write_down(sender: Any, task_result: Any, **kwargs: Any) -> None:
    if path := os.environ.get("THIRDPARTY_SIGNALS"):
        error = sys.exc_info()[0]
        words = [
            task_result.task.name,
            str(task_result.status),
            sender.__name__,
            error.__name__ if error else "-",
        ]
        with Path(path).open("a") as file:
            file.write(" ".join(words) + "\n")


task_started.connect(_write_down)
task_finished.connect(_write_down)
