"""The tasks of procrastinate, and the periodic task that its guide asks for."""

from __future__ import annotations

from typing import Any

from procrastinate.contrib.django import app
from procrastinate.contrib.django.models import ProcrastinateJob
from procrastinate.exceptions import AlreadyEnqueued

from tests.benchmarks.inside import work as body
from tests.benchmarks.inside.given import GIVEN

RESCUE = "retry_stalled_jobs"


@app.task(name="work")
def work(key: str, seconds: float = 0.0) -> None:
    body.work(key, seconds)


@app.task(name="die")
def die(key: str) -> None:
    body.die(key)


@app.task(name="fail")
def fail(key: str, poison: str) -> None:
    body.fail(key, poison)


# From its guide, every 5 seconds instead of every 10 minutes.
@app.periodic(cron="* * * * * */5")
@app.task(name=RESCUE, queueing_lock=RESCUE, pass_context=True)
async def retry_stalled_jobs(context: Any, timestamp: int) -> None:
    stalled = await app.job_manager.get_stalled_jobs(
        seconds_since_heartbeat=GIVEN["lease"]
    )
    for job in stalled:
        await app.job_manager.retry_job(job)


def tick(timestamp: int, key: str) -> None:
    body.work(key)


def declare_schedules(names: list[str]) -> None:
    """Schedules are code: the corrupt one has a field too few."""
    for name in names:
        cron = "* * * * * */5" if name != names[0] else "* * *"
        task = app.task(tick, name=f"tick-{name}")
        periodic = app.periodic(cron=cron, periodic_id=name, task_kwargs={"key": name})
        periodic(task)


if GIVEN["schedules"]:
    declare_schedules(GIVEN["schedules"])

TASKS = {"work": work, "die": die, "fail": fail}
NAMES = {"work": ("key", "seconds"), "die": ("key",), "fail": ("key", "poison")}


def enqueue(name: str, args: list[Any]) -> None:
    TASKS[name].defer(**named(name, args))


def enqueue_many(name: str, calls: list[list[Any]]) -> None:
    for first in range(0, len(calls), 1000):
        chunk = calls[first : first + 1000]
        TASKS[name].batch_defer(*[named(name, args) for args in chunk])


def named(name: str, args: list[Any]) -> dict[str, Any]:
    return dict(zip(NAMES[name], args, strict=False))


def enqueue_unique(key: str) -> bool:
    try:
        work.configure(queueing_lock=key).defer(key=key)
    except AlreadyEnqueued:
        return False
    return True


def unfinished() -> int:
    waiting = ProcrastinateJob.objects.filter(status__in=["todo", "doing", "aborting"])
    return waiting.exclude(task_name=RESCUE).count()
