"""The tasks of django-q2: plain functions, called by their path."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.db import transaction
from django.utils import timezone
from django_q.models import OrmQ, Schedule
from django_q.tasks import async_task, schedule

PATH = "tests.benchmarks.inside.work"


def enqueue(name: str, args: list[Any]) -> None:
    # A task that is expected to fail is not to be tried again.
    async_task(f"{PATH}.{name}", *args, ack_failure=name == "fail")


def enqueue_many(name: str, calls: list[list[Any]]) -> None:
    for first in range(0, len(calls), 1000):
        with transaction.atomic():
            for args in calls[first : first + 1000]:
                enqueue(name, args)


def unfinished() -> int:
    return OrmQ.objects.count()


def make_schedules(names: list[str]) -> None:
    for name in names:
        schedule(
            f"{PATH}.work",
            name,
            name=name,
            schedule_type=Schedule.MINUTES,
            minutes=1,
            next_run=timezone.now() - timedelta(seconds=1),
        )
    # What its admin lets a person type: a bracket that is never closed.
    Schedule.objects.filter(name=names[0]).update(args="(1,")
