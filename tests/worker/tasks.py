"""Tasks for the tests of the executor: each ends in its own way."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.db import connections, transaction

from django_jobs import Reject, Retry, Snooze, current_context, task
from django_jobs.exceptions import SoftTimeLimitExceeded, TaskInterrupted
from django_jobs.models import Queue

logger = logging.getLogger("tests.worker.tasks")
PATIENCE = 20.0
#: What tasks leave for the test to see.
seen: list[Any] = []


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class Treacherous(Exception):
    def __str__(self) -> str:
        raise SystemExit("no text either")


RAISES: dict[str, Callable[[], BaseException]] = {
    "error": lambda: ValueError("no luck"),
    "unwanted": lambda: KeyError("give up"),
    "reject": lambda: Reject("not for me"),
    "retry": lambda: Retry("once more", after=7),
    "retry by policy": lambda: Retry("once more"),
    "snooze": lambda: Snooze(timedelta(seconds=9)),
    "exit": lambda: SystemExit(3),
    "keyboard": KeyboardInterrupt,
    "generator": GeneratorExit,
    "interrupted": TaskInterrupted,
    "soft": SoftTimeLimitExceeded,
    "unspeakable": Unspeakable,
    "treacherous": Treacherous,
    "nul": lambda: ValueError("a\0b \ud800"),
    "group": lambda: ExceptionGroup("several", [ValueError("one"), KeyError("two")]),
}
POLICY: dict[str, Any] = {"backoff": [33], "give_up_on": KeyError, "max_attempts": 3}


def _leave(attempt: int, error: BaseException) -> float:
    raise KeyboardInterrupt


@task(backoff=_leave)
def fail_with_a_backoff_that_leaves() -> None:
    raise ValueError("no luck")


@task(**POLICY)
def end(how: str) -> None:
    raise RAISES[how]()


@task(**POLICY)
async def aend(how: str) -> None:
    await asyncio.sleep(0)
    raise RAISES[how]()


@task(result_retention=77)
def give(value: Any = None) -> Any:
    return value


@task(result_retention=77)
async def agive(value: Any = None) -> Any:
    await asyncio.sleep(0)
    return value


@task
def give_what_is_no_json() -> object:
    return {"a": [object()]}


@task
async def agive_what_is_no_json() -> object:
    return {"a": [object()]}


@task
def give_list(value: Any) -> list[Any]:
    return [value]


@task(store_result=False)
def give_nothing_to_keep() -> object:
    return object()


@task
def log(*lines: str) -> None:
    for line in lines:
        logger.warning(line)
    raise ValueError


@task(takes_context=True)
def change_metadata(context: Any, fails: bool, value: Any = 1) -> None:
    context.metadata["new"] = object() if value == "no JSON" else value
    if fails:
        raise ValueError


@task(takes_context=True)
def look_around(context: Any) -> list[Any]:
    current = current_context()
    same = current is context
    return [same, context.attempt, context.remaining() > 0, context.worker_id]


@task(soft_time_limit=0.02)
def overstay() -> None:
    threading.Event().wait(PATIENCE)


@task(soft_time_limit=0.02)
def overstay_politely() -> str:
    try:
        threading.Event().wait(PATIENCE)
    except SoftTimeLimitExceeded:
        return "tidied up"
    return "was not interrupted"


@task(takes_context=True)
def wait_until_told(context: Any) -> str:
    seen.append(context.claimed.id)
    try:
        threading.Event().wait(PATIENCE)
    except TaskInterrupted:
        return f"asked to stop: {context.should_stop()}"
    return "was not interrupted"


@task
def leave_a_transaction_open() -> None:
    transaction.atomic("default").__enter__()
    Queue.objects.create(name="left open")


def begin_unnoticed() -> None:
    """Begin a transaction as if a limit were over before Django takes note of it."""
    connection = connections["default"]
    connection.ensure_connection()
    connection.set_autocommit(
        False, force_begin_transaction_with_broken_autocommit=True
    )
    connection.autocommit = True


@task(max_attempts=3)
def write_into_what_is_unnoticed(how: str) -> None:
    begin_unnoticed()
    Queue.objects.create(name="left open")
    if how == "raise":
        raise SoftTimeLimitExceeded("the soft limit")


def _begin(how: str) -> None:
    if how == "by autocommit":
        connections["default"].set_autocommit(False)
        return
    with connections["default"].cursor() as cursor:
        cursor.execute(how)


@task(max_attempts=3)
def leave_begun(how: str) -> None:
    _begin(how)
    Queue.objects.create(name="left open")


@task
def end_begun(how: str) -> None:
    _begin(how)
    Queue.objects.create(name="committed")
    if how == "by autocommit":
        connections["default"].commit()
        return
    with connections["default"].cursor() as cursor:
        cursor.execute("COMMIT")


@task(atomic=True, max_attempts=3)
def note(name: str, how: str = "") -> str:
    Queue.objects.create(name=name)
    if how == "raise":
        raise ValueError("rolled back")
    if how == "callback fails":
        transaction.on_commit(lambda: sys.exit("after the commit"))
    if how == "no JSON":
        return object()  # type: ignore[return-value]
    seen.append(connections["default"].in_atomic_block)
    return name


def _wait_at_second_run() -> None:
    seen.append("run")
    if len(seen) == 2:
        threading.Event().wait(2)


@task(atomic=True, soft_time_limit=0.3, max_attempts=3)
def overstay_at_second_run() -> None:
    _wait_at_second_run()


@task(atomic=True, max_attempts=3)
def wait_at_second_run() -> None:
    _wait_at_second_run()
