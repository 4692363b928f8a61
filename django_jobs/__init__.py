"""Background tasks for Django with the database it already has as the broker."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, NoReturn

from django_jobs.context import TaskContext, current_context
from django_jobs.decorators import task
from django_jobs.definitions import (
    Signature,
    TaskDefinition,
    aenqueue_many,
    enqueue_many,
)
from django_jobs.exceptions import (
    EnqueueError,
    InvalidArguments,
    InvalidOption,
    InvalidTask,
    JobsError,
    PayloadTooLarge,
    Reject,
    ResultError,
    ResultTimeout,
    Retry,
    Snooze,
    SoftTimeLimitExceeded,
    StaleLease,
    TaskExpired,
    TaskFailed,
    TaskInterrupted,
    TaskNotFound,
    TaskRevoked,
    UnknownQueue,
    UnknownTask,
)
from django_jobs.hints import instead_of_name
from django_jobs.results import TaskResult, afetch_result, fetch_result
from django_jobs.retries import RetryPolicy
from django_jobs.states import State

__version__ = "0.1.0"

__all__ = [  # noqa: RUF022 - grouped by what they are for
    # Declaring
    "task",
    "RetryPolicy",
    # Enqueueing
    "Signature",
    "TaskDefinition",
    "enqueue_many",
    "aenqueue_many",
    # Raised by a task, to say how it goes on
    "Retry",
    "Snooze",
    "Reject",
    # Inside a task
    "TaskContext",
    "current_context",
    "SoftTimeLimitExceeded",
    "TaskInterrupted",
    # Results
    "State",
    "TaskResult",
    "fetch_result",
    "afetch_result",
    # Errors
    "JobsError",
    "EnqueueError",
    "InvalidArguments",
    "InvalidOption",
    "InvalidTask",
    "PayloadTooLarge",
    "ResultError",
    "ResultTimeout",
    "StaleLease",
    "TaskExpired",
    "TaskFailed",
    "TaskNotFound",
    "TaskRevoked",
    "UnknownQueue",
    "UnknownTask",
]

if not TYPE_CHECKING:  # a type checker is to find them by itself

    def __getattr__(name: str) -> NoReturn:
        """Say what to write in place of what the packages of others have."""
        ours = instead_of_name(name)
        words = f"module {__name__!r} has no attribute {name!r}{ours}"
        # The import statement would put a text of its own in place of this one.
        asks = sys._getframe(1).f_globals.get("__name__")
        if ours and asks == "importlib._bootstrap":
            raise ImportError(words, name=__name__)
        raise AttributeError(words, name=name, obj=sys.modules[__name__])
