"""Our own tasks."""

from __future__ import annotations

from typing import Any

from django_jobs import enqueue_many as insert_many
from django_jobs import task
from django_jobs.models import Task
from tests.benchmarks.inside import work as body


@task
def work(key: str, seconds: float = 0.0) -> None:
    body.work(key, seconds)


@task
def die(key: str) -> None:
    body.die(key)


@task(max_attempts=1)
def fail(key: str, poison: str) -> None:
    body.fail(key, poison)


TASKS = {"work": work, "die": die, "fail": fail}


def enqueue(name: str, args: list[Any]) -> None:
    TASKS[name].enqueue(*args)


def enqueue_many(name: str, calls: list[list[Any]]) -> None:
    for first in range(0, len(calls), 1000):
        insert_many([TASKS[name].s(*args) for args in calls[first : first + 1000]])


def unfinished() -> int:
    return Task.objects.count()
