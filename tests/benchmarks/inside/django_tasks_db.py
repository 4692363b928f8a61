"""The tasks of django-tasks-db, declared with Django's own decorator."""

from __future__ import annotations

from typing import Any

from django.db import transaction
from django.tasks import TaskResultStatus, task
from django_tasks_db.models import DBTaskResult

from tests.benchmarks.inside import work as body


@task
def work(key: str, seconds: float = 0.0) -> None:
    body.work(key, seconds)


@task
def die(key: str) -> None:
    body.die(key)


@task
def fail(key: str, poison: str) -> None:
    body.fail(key, poison)


TASKS = {"work": work, "die": die, "fail": fail}
NOT_DONE = [TaskResultStatus.READY, TaskResultStatus.RUNNING]


def enqueue(name: str, args: list[Any]) -> None:
    TASKS[name].enqueue(*args)


def enqueue_many(name: str, calls: list[list[Any]]) -> None:
    for first in range(0, len(calls), 1000):
        with transaction.atomic():
            for args in calls[first : first + 1000]:
                enqueue(name, args)


def unfinished() -> int:
    return DBTaskResult.objects.filter(status__in=NOT_DONE).count()
