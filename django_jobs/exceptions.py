"""Every error of django_jobs, and what a task may raise to say how it goes on.

JobsError
├── SetupError               the app is not installed, or its tables are missing or old
├── ConnectionBusy           called inside a query of the same connection
├── InvalidTask              a declaration that cannot work (at import)
├── EnqueueError             refused before any SQL
│   ├── InvalidArguments     wrong signature, or a value that is no JSON
│   ├── PayloadTooLarge
│   ├── InvalidOption        an option of ``using()`` that makes no sense
│   ├── UnknownQueue
│   └── UnreachableTask      declared where no worker can import it
├── UnknownTask              no registered task has this name
├── TaskNotFound             no row has this id (or it was pruned)
├── UnknownState             a row has a state that this version does not know
├── StaleLease               the run lost its right to complete the task
├── InvalidResult            what a task returned or noted cannot be stored
└── ResultError              the value of a result is not to be had
    ├── ResultTimeout        not finished in time
    ├── TaskFailed           the task is a dead letter
    ├── TaskRevoked
    └── TaskExpired

Raised by a task: ``Retry``, ``Snooze``, ``Reject``.
Raised in a task, as BaseException so that ``except Exception`` does not swallow them:
``SoftTimeLimitExceeded``, ``TaskInterrupted``.
"""

from __future__ import annotations

from datetime import timedelta

from django.core.exceptions import ImproperlyConfigured


class JobsError(Exception):
    """Base of all errors of django_jobs."""


class SetupError(JobsError, ImproperlyConfigured):
    """The app is not installed, or not migrated; the message says what to do."""


class ConnectionBusy(JobsError, RuntimeError):
    """The call is made inside a query of the same connection; nothing was sent."""


class InvalidTask(JobsError):
    """A task is declared in a way that cannot work; the message says what to write."""


class EnqueueError(JobsError):
    """A task was refused by ``enqueue()``; nothing was sent to the database."""


class InvalidArguments(EnqueueError, TypeError):
    """Arguments do not fit the signature, or a value of them is no JSON."""


class PayloadTooLarge(EnqueueError, ValueError):
    """The arguments are longer than ``PAYLOAD_MAX_BYTES``."""


class InvalidOption(EnqueueError, ValueError):
    """An option of ``using()`` has a value that makes no sense."""


class UnknownQueue(EnqueueError, ValueError):
    """The queue is not one of the declared ``QUEUES``."""


class UnreachableTask(EnqueueError):
    """The task is declared in a script or a shell, which no worker can import."""


class UnknownTask(JobsError, LookupError):
    """No registered task has this name."""


class TaskNotFound(JobsError, LookupError):
    """No task, result or dead letter has this id."""


class UnknownState(JobsError, ValueError):
    """A row has a state that there is not: of a later version, or written by hand."""


class StaleLease(JobsError):
    """The run lost its lease: another worker may have the task, its outcome is void."""


class InvalidResult(JobsError, ValueError):
    """A task returned what cannot be stored: no JSON, or too much of it.

    Also raised for too much metadata or progress. Another run would end in the same
    way, so there is none.
    """


class ResultError(JobsError, ValueError):
    """The return value is not to be had, or not yet."""


class ResultTimeout(ResultError, TimeoutError):
    """The task did not finish in the time given."""


class TaskFailed(ResultError):
    """The task failed for good and is a dead letter; what it raised is here as text."""

    def __init__(
        self, message: str, *, exception_class_path: str = "", traceback: str = ""
    ) -> None:
        super().__init__(message)
        self.exception_class_path = exception_class_path
        self.traceback = traceback


class TaskRevoked(ResultError):
    """The task was revoked."""


class TaskExpired(ResultError):
    """The task was not started before it expired."""


class TimeLimitExceeded(JobsError):
    """The hard ``time_limit`` was over and the child process was killed."""


class WorkerLost(JobsError):
    """The worker or its child process died while it ran the task."""


class Retry(Exception):
    """Raised by a task: run it again; this attempt counts.

    ``after`` is a delay in seconds or a timedelta; None takes the task's backoff.
    """

    def __init__(
        self, message: str = "", *, after: float | timedelta | None = None
    ) -> None:
        super().__init__(message or "the task asked to be retried")
        self.after = None if after is None else seconds(after)


class Snooze(Exception):
    """Raised by a task: run it again after a delay; this attempt does not count."""

    def __init__(self, after: float | timedelta) -> None:
        super().__init__(f"the task asked to be run again in {after}")
        self.after = seconds(after)


class Reject(Exception):
    """Raised by a task: never run it again; it becomes a dead letter."""


class TaskInterruption(BaseException):
    """Base of what is raised in a running task from outside it."""


class SoftTimeLimitExceeded(TaskInterruption):
    """The ``soft_time_limit`` is over: tidy up and return or raise."""


class TaskInterrupted(TaskInterruption):
    """The task was revoked, or the worker stops: tidy up and leave."""


def seconds(value: float | timedelta) -> float:
    """Return a delay in seconds, never negative; ValueError for what is none."""
    number = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(number, bool) or not isinstance(number, (int, float)):
        raise TypeError(f"a delay is a number of seconds or a timedelta, not {value!r}")
    if not 0 <= number < 10_000 * 86_400:
        raise ValueError(f"a delay is between 0 and 10,000 days, not {value!r}")
    return float(number)
