"""The tasks of Celery on Redis, with django-celery-beat for schedules."""

from __future__ import annotations

from typing import Any

import django
import redis
from celery import Celery

from tests.benchmarks.inside import work as body
from tests.benchmarks.inside.given import GIVEN

app = Celery("benchmark")
app.config_from_object("django.conf:settings", namespace="CELERY")
django.setup()


@app.task(name="work")
def work(key: str, seconds: float = 0.0) -> None:
    body.work(key, seconds)


@app.task(name="die")
def die(key: str) -> None:
    body.die(key)


@app.task(name="fail")
def fail(key: str, poison: str) -> None:
    body.fail(key, poison)


TASKS = {"work": work, "die": die, "fail": fail}


def enqueue(name: str, args: list[Any]) -> None:
    TASKS[name].delay(*args)


def enqueue_many(name: str, calls: list[list[Any]]) -> None:
    for args in calls:
        enqueue(name, args)


def unfinished() -> int:
    """Tasks in the queue, and those that were delivered and not acknowledged."""
    client = redis.Redis.from_url(GIVEN["redis"])
    return client.llen("celery") + client.hlen("unacked")


def make_schedules(names: list[str]) -> None:
    from django_celery_beat.models import IntervalSchedule, PeriodicTask, PeriodicTasks

    interval = IntervalSchedule.objects.create(every=5, period=IntervalSchedule.SECONDS)
    for name in names:
        PeriodicTask.objects.create(
            name=name, task="work", interval=interval, args=f'["{name}"]'
        )
    PeriodicTask.objects.filter(name=names[0]).update(args="(1,")
    PeriodicTasks.update_changed()
