"""Task definitions that the settings do not agree with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.core.checks import CheckMessage, Error

from django_jobs.conf import Conf, readable_conf
from django_jobs.definitions import TaskDefinition, all_definitions
from django_jobs.options import did_you_mean


def check_tasks(**kwargs: Any) -> list[CheckMessage]:
    """Return what is wrong with the registered tasks."""
    given = readable_conf()
    messages: list[CheckMessage] = []
    for definition in all_definitions():
        messages += _check_queue(definition, given)
        messages += _check_limits(definition, given)
    return messages


def _check_queue(
    definition: TaskDefinition[..., Any], given: Conf
) -> Iterator[CheckMessage]:
    name, queues = definition.options.queue_name, given.QUEUES
    # Of the default queue E007 speaks, once for all tasks.
    if name and queues and name not in (given.DEFAULT_QUEUE, *queues):
        yield Error(
            f"The task {definition.name} goes to the queue {name!r}, which is not "
            f"declared.{did_you_mean(name, queues)}",
            hint=f"Add {name!r} to DJANGO_JOBS['QUEUES'], or give the task another "
            "queue_name.",
            id="django_jobs.E020",
        )


def _check_limits(
    definition: TaskDefinition[..., Any], given: Conf
) -> Iterator[CheckMessage]:
    soft = definition.options.soft_time_limit or given.SOFT_TIME_LIMIT
    hard = definition.options.time_limit or given.TIME_LIMIT
    if soft is not None and hard is not None and soft > hard:
        yield Error(
            f"The task {definition.name} has a soft_time_limit of {soft:g} s, but its "
            f"process is killed after {hard:g} s.",
            hint="Give the task a shorter soft_time_limit or a longer time_limit; what "
            "it does not say itself is in DJANGO_JOBS.",
            id="django_jobs.E021",
        )
