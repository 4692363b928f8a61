"""Tasks of every kind, found by themselves when the apps are loaded."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django_jobs import TaskContext, task


@task
def add(a: int, b: int = 2) -> int:
    return a + b


@task
async def double(value: int) -> int:
    return 2 * value


@task
def echo(*args: Any, **kwargs: Any) -> Any:
    return [args, kwargs]


@task
def greet(name: str, *, punctuation: str) -> str:
    return f"Hello {name}{punctuation}"


@task(takes_context=True)
def describe(context: TaskContext, value: str) -> list[Any]:
    return [context.attempt, context.idempotency_key, value]


@task(takes_context=True)
async def adescribe(context: TaskContext, value: str) -> list[Any]:
    return [context.attempt, value]


@task(
    name="sample.send",
    queue_name="mail",
    priority=10,
    max_attempts=5,
    backoff=[1, 2, timedelta(seconds=3)],
    retry_on=[OSError],
    give_up_on=FileNotFoundError,
    time_limit=60,
    soft_time_limit=timedelta(seconds=50),
    expires=3600,
    atomic=True,
    store_result=False,
    result_retention=timedelta(days=1),
    sensitive=["password"],
)
def send(address: str, password: str = "") -> None: ...


@task(sensitive=True)
def keep_quiet(*words: str, **more: str) -> None: ...
