"""The tasks of django-ox, with its app ``oxpull`` for unique tasks."""

from __future__ import annotations

from typing import Any

from django import forms
from django.tasks import task
from django_ox.bulk import enqueue_many as insert_many
from django_ox.models import OxSchedule, OxTask
from django_ox.registry import ArgsForm, schedulable
from django_ox.stored import create_schedule
from oxpull.unique import unique

from tests.benchmarks.inside import work as body


class Name(ArgsForm):
    key = forms.CharField()


@schedulable("work", form=Name)
@task
def work(key: str, seconds: float = 0.0) -> None:
    body.work(key, seconds)


@task
def die(key: str) -> None:
    body.die(key)


@task(max_attempts=1)
def fail(key: str, poison: str) -> None:
    body.fail(key, poison)


@unique
@task
def once(key: str) -> None:
    body.work(key)


TASKS = {"work": work, "die": die, "fail": fail}
NOT_DONE = ["READY", "RUNNING", "WAITING"]


def enqueue(name: str, args: list[Any]) -> None:
    TASKS[name].enqueue(*args)


def enqueue_many(name: str, calls: list[list[Any]]) -> None:
    for first in range(0, len(calls), 1000):
        insert_many(TASKS[name], [(args, {}) for args in calls[first : first + 1000]])


def enqueue_unique(key: str) -> bool:
    """The second enqueue of a key returns the result of the first."""
    before = OxTask.objects.count()
    once.enqueue(key)
    return OxTask.objects.count() > before


def unfinished() -> int:
    return OxTask.objects.filter(status__in=NOT_DONE).count()


def make_schedules(names: list[str]) -> None:
    for name in names:
        create_schedule(
            name=name,
            task_key="work",
            trigger="interval",
            every_seconds=5,
            arguments={"key": name},
        )
    OxSchedule.objects.filter(name=names[0]).update(arguments="(1,")
