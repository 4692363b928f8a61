"""Which task framework of Django there is: its own since 6.0, the backport before.

The two are parallel worlds with classes of their own, so the choice goes by Django's
version and never by what happens to be installed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import django
from django.core.exceptions import ImproperlyConfigured

if TYPE_CHECKING or django.VERSION >= (6, 0):
    from django.tasks import task_backends
    from django.tasks.backends.base import BaseTaskBackend
    from django.tasks.base import (
        TASK_REFRESH_ATTRS,
        Task,
        TaskContext,
        TaskError,
        TaskResult,
        TaskResultStatus,
    )
    from django.tasks.exceptions import InvalidTask, TaskResultDoesNotExist
    from django.tasks.signals import task_enqueued, task_finished, task_started
    from django.utils.json import normalize_json
else:
    try:
        from django_tasks import task_backends
        from django_tasks.backends.base import BaseTaskBackend
        from django_tasks.base import (
            TASK_REFRESH_ATTRS,
            Task,
            TaskContext,
            TaskError,
            TaskResult,
            TaskResultStatus,
        )
        from django_tasks.exceptions import InvalidTaskError as InvalidTask
        from django_tasks.exceptions import TaskResultDoesNotExist
        from django_tasks.signals import task_enqueued, task_finished, task_started
        from django_tasks.utils import normalize_json
    except ModuleNotFoundError as error:
        raise ImproperlyConfigured(
            "django_jobs.backend serves Django's own task decorator, which Django "
            f"{django.__version__} has from a package of its own: "
            "pip install 'django-jobworker[backport]'"
        ) from error

# As text: these classes take parameters in the backport alone.
AnyTask: TypeAlias = "Task[..., object]"
AnyResult: TypeAlias = "TaskResult[..., object]"

__all__ = [
    "TASK_REFRESH_ATTRS",
    "AnyResult",
    "AnyTask",
    "BaseTaskBackend",
    "InvalidTask",
    "Task",
    "TaskContext",
    "TaskError",
    "TaskResult",
    "TaskResultDoesNotExist",
    "TaskResultStatus",
    "normalize_json",
    "task_backends",
    "task_enqueued",
    "task_finished",
    "task_started",
]
