"""Rows of the tables for the tests of what shows them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from django_jobs.models import (
    Attempt,
    DeadLetter,
    Maintenance,
    Operation,
    Queue,
    Result,
    Rollup,
    Schedule,
    Task,
    Worker,
)

NOON = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
WORKER = "01981a2b-3c4d-7e5f-8a9b-00000000000a"
TRACEBACK = 'Traceback (most recent call last):\n  File "a.py", line 1\nKeyError: 7\n'
#: Columns that no list may load.
PAYLOADS = ("args", "kwargs", "return_value", "traceback", "log", "headers", "metadata")


def key(number: int) -> str:
    return f"01981a2b-3c4d-7e5f-8a9b-{number:012x}"


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def _common(**more: Any) -> dict[str, Any]:
    return {
        "name": "shop.tasks.send",
        "queue_name": "mail",
        "args": "[42]",
        "kwargs": '{"to": "Zoe"}',
        "summary": "42, to='Zoe'",
        "max_attempts": 3,
        "enqueued_at": NOON,
        "run_after": NOON,
        **more,
    }


def task(number: int = 1, **more: Any) -> Task:
    return Task.objects.create(id=key(number), **_common(**more))


def result(number: int = 1, **more: Any) -> Result:
    values: dict[str, Any] = {
        "state": "SUCCESSFUL",
        "attempt": 1,
        "started_at": at(1),
        "last_attempted_at": at(1),
        "finished_at": at(3.5),
        "worker_id": WORKER,
        "return_value": '{"sent": true}',
        **more,
    }
    return Result.objects.create(id=key(number), **_common(**values))


def dead_letter(number: int = 1, **more: Any) -> DeadLetter:
    values: dict[str, Any] = {
        "attempt": 3,
        "started_at": at(1),
        "last_attempted_at": at(60),
        "finished_at": at(61),
        "worker_id": WORKER,
        "reason": "attempts used up",
        "exception_class": "builtins.KeyError",
        "message": "7",
        "traceback": TRACEBACK,
        "fingerprint": "0123456789abcdef",
        **more,
    }
    return DeadLetter.objects.create(id=key(number), **_common(**values))


def attempt(task_number: int = 1, number: int = 1, **more: Any) -> Attempt:
    values: dict[str, Any] = {
        "verdict": "retry",
        "worker_id": WORKER,
        "worker_name": "web1:4711",
        "started_at": at(1),
        "finished_at": at(2),
        "exception_class": "builtins.KeyError",
        "message": "7",
        "traceback": TRACEBACK,
        **more,
    }
    return Attempt.objects.create(task_id=key(task_number), number=number, **values)


def worker(**more: Any) -> Worker:
    values: dict[str, Any] = {
        "id": WORKER,
        "name": "web1:4711",
        "host": "web1",
        "pid": 4711,
        "started_at": NOON,
        "seen_at": NOON,
        "expires_at": datetime(2226, 1, 1, tzinfo=UTC),
        **more,
    }
    return Worker.objects.create(**values)


def one_of_each() -> list[Any]:
    """Return a row of every table."""
    return [
        task(1, state="RUNNING", attempt=1, worker_id=WORKER, progress="[]"),
        result(2, log="done"),
        dead_letter(3),
        attempt(3, log="half way"),
        worker(),
        Queue.objects.create(name="mail", paused_at=NOON, rate_limit=5, rate_period=60),
        Schedule.objects.create(
            name="tidy", task="shop.tasks.tidy", kind="interval", interval=300
        ),
        Rollup.objects.create(
            starts_at=NOON, queue_name="mail", name="shop.tasks.send", verdict="failed"
        ),
        Operation.objects.create(kind="retry", created_at=NOON, total=5),
        Maintenance.objects.create(name="prune", last_run_at=NOON),
    ]
