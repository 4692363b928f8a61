"""Task definitions that the settings do not agree with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error

from django_jobs.conf import conf, find_problems
from django_jobs.definitions import TaskDefinition, all_definitions
from django_jobs.options import did_you_mean


def check_tasks(**kwargs: Any) -> list[CheckMessage]:
    """Return what is wrong with the registered tasks."""
    if find_problems(getattr(settings, "DJANGO_JOBS", {})):
        return []
    messages: list[CheckMessage] = []
    for definition in all_definitions():
        messages += _check_queue(definition)
        messages += _check_limits(definition)
    return messages


def _check_queue(definition: TaskDefinition[..., Any]) -> Iterator[CheckMessage]:
    name, queues = definition.queue_name, conf().QUEUES
    if queues and name not in queues:
        yield Error(
            f"The task {definition.name} goes to the queue {name!r}, which is not "
            f"declared.{did_you_mean(name, queues)}",
            hint=f"Add {name!r} to DJANGO_JOBS['QUEUES'], or give the task another "
            "queue_name.",
            id="django_jobs.E020",
        )


def _check_limits(definition: TaskDefinition[..., Any]) -> Iterator[CheckMessage]:
    soft, hard = definition.soft_time_limit, definition.time_limit
    if soft is not None and hard is not None and soft > hard:
        yield Error(
            f"The task {definition.name} has a soft_time_limit of {soft:g} s, but its "
            f"process is killed after {hard:g} s.",
            hint="Give the task a shorter soft_time_limit or a longer time_limit; what "
            "it does not say itself is in DJANGO_JOBS.",
            id="django_jobs.E021",
        )
