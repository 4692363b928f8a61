"""Mistakes in ``DJANGO_JOBS`` and in the settings of Django that concern us."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning
from django.db import connections
from django.utils.module_loading import import_string

from django_jobs import failpoints
from django_jobs.checks.backends import check_tasks_setting
from django_jobs.checks.names import check_names
from django_jobs.conf import (
    Conf,
    find_backend_problems,
    find_problems,
    readable_conf,
)


def check_settings(**kwargs: Any) -> list[CheckMessage]:
    """Return what is wrong with the settings."""
    given = readable_conf()
    return [
        *map(_wrong_backend, find_backend_problems()),
        *check_tasks_setting(),
        *check_names(),
        *_check_time_zones(),
        *map(_wrong_setting, find_problems(getattr(settings, "DJANGO_JOBS", {}))),
        *_check_aliases(given),
        *_check_middleware(given),
        *_check_numbers(given),
        *_check_amounts(given),
        *_check_failpoints(),
    ]


def _wrong_setting(problem: str) -> CheckMessage:
    return Error(
        problem,
        hint="Correct the key or its value, or take it out: every key is optional.",
        id="django_jobs.E001",
    )


def _wrong_backend(problem: str) -> CheckMessage:
    return Error(
        problem,
        hint='Write TASKS = {"default": {"BACKEND": "..."}}, or take TASKS out.',
        id="django_jobs.E017",
    )


def _check_aliases(given: Conf) -> Iterator[CheckMessage]:
    if given.DATABASE is not None and given.DATABASE not in settings.DATABASES:
        yield Error(
            f"DJANGO_JOBS['DATABASE'] is {given.DATABASE!r}, which is no alias.",
            hint=f"The aliases are {', '.join(settings.DATABASES)}.",
            id="django_jobs.E002",
        )
    alias = given.LISTEN_DATABASE
    if alias is not None and not _is_postgresql(alias):
        yield Error(
            f"DJANGO_JOBS['LISTEN_DATABASE'] is {alias!r}, which is no PostgreSQL "
            "database of DATABASES.",
            hint="Name an alias that reaches the queue's database without a pooler.",
            id="django_jobs.E003",
        )

    if given.FAST_RESCUE and not given.NOTIFY:
        yield Warning(
            "FAST_RESCUE has no effect without NOTIFY: the lock by which a worker is "
            "known is held by the connection that listens.",
            hint="Take one of them out of DJANGO_JOBS.",
            id="django_jobs.W009",
        )


def _is_postgresql(alias: str) -> bool:
    return alias in settings.DATABASES and connections[alias].vendor == "postgresql"


def _check_middleware(given: Conf) -> Iterator[CheckMessage]:
    for key in ("MIDDLEWARE", "ENQUEUE_MIDDLEWARE"):
        for path in getattr(given, key):
            if problem := _problem_of(path):
                yield Error(
                    f"DJANGO_JOBS[{key!r}] names {path!r}, {problem}",
                    hint="Write the dotted path of a middleware factory.",
                    id="django_jobs.E004",
                )


def _problem_of(path: str) -> str:
    try:
        factory = import_string(path)
    except ImportError as error:
        return f"which cannot be imported: {error}"
    return "" if callable(factory) else "which cannot be called."


def _check_numbers(given: Conf) -> Iterator[CheckMessage]:
    if given.HEARTBEAT * 2 > given.LEASE:
        yield Error(
            f"A worker that gives a sign of life every {given.HEARTBEAT:g} s and "
            f"counts as dead after {given.LEASE:g} s loses its tasks when one is late.",
            hint="Make DJANGO_JOBS['LEASE'] at least twice its 'HEARTBEAT'.",
            id="django_jobs.E005",
        )
    soft, hard = given.SOFT_TIME_LIMIT, given.TIME_LIMIT
    if soft is not None and hard is not None and soft > hard:
        yield Error(
            f"SOFT_TIME_LIMIT ({soft:g} s) is longer than TIME_LIMIT ({hard:g} s): "
            "the process is killed before the task is asked to tidy up.",
            hint="Make DJANGO_JOBS['SOFT_TIME_LIMIT'] the shorter one.",
            id="django_jobs.E006",
        )
    if given.QUEUES and given.DEFAULT_QUEUE not in given.QUEUES:
        yield Error(
            f"DEFAULT_QUEUE is {given.DEFAULT_QUEUE!r}, which is not among QUEUES: "
            "tasks that name no queue are refused.",
            hint="Add it to DJANGO_JOBS['QUEUES'], or set 'DEFAULT_QUEUE' to one of "
            f"{', '.join(given.QUEUES)}.",
            id="django_jobs.E007",
        )


def _check_amounts(given: Conf) -> Iterator[CheckMessage]:
    for key in _POSITIVE:
        if getattr(given, key) == 0:
            yield Error(
                f"DJANGO_JOBS[{key!r}] is 0, so that no task can run.",
                hint="Write a number above 0, or leave it out.",
                id="django_jobs.E008",
            )
    for low, high in _ORDERED:
        if getattr(given, low) > getattr(given, high):
            yield Error(
                f"DJANGO_JOBS[{low!r}] is more than its {high!r}.",
                hint=f"Exchange them, or leave out {low!r}.",
                id="django_jobs.E009",
            )


_POSITIVE = (
    "MAX_ATTEMPTS",
    "TIME_LIMIT",
    "SOFT_TIME_LIMIT",
    "CRASH_BUDGET",
    "PAYLOAD_MAX_BYTES",
    "PAYLOAD_MAX_DEPTH",
    "LEASE",
    "HEARTBEAT",
    "POLL",
)
_ORDERED = (("BACKOFF_BASE", "BACKOFF_CAP"), ("POLL_FASTEST", "POLL_SLOWEST"))


def _check_time_zones() -> Iterator[CheckMessage]:
    if not settings.USE_TZ:
        yield Warning(
            "USE_TZ is off: times of tasks are ambiguous when clocks are set back.",
            hint="Set USE_TZ = True.",
            id="django_jobs.W001",
        )


def _check_failpoints() -> Iterator[CheckMessage]:
    problems = [failpoints.problem] if failpoints.problem else []
    problems += [
        f"{failpoints.VARIABLE}: There is no database {rule.argument!r}."
        for rule in failpoints.rules()
        if rule.action == "dbdrop" and rule.database not in settings.DATABASES
    ]
    for problem in problems:
        yield Error(
            problem,
            hint="Correct this variable of the environment, or unset it.",
            id="django_jobs.E018",
        )
