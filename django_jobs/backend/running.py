"""The result of a task that runs here, without a query as far as that is possible.

Django's own receivers are told of every run and look at three fields. The first run of
a task knows all but the times of the database; they are read when somebody looks.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django_jobs.backend.api import TaskError, TaskResultStatus
from django_jobs.backend.results import JobsTaskResult, Times, as_task_result, task_of
from django_jobs.context import TaskContext
from django_jobs.records import Outcome
from django_jobs.serializers import loads
from django_jobs.states import Verdict


def running_result(context: TaskContext) -> JobsTaskResult:
    """Return the result as it is while the task runs."""
    if context.claimed.attempt > 1:
        return as_task_result(context.task_result.record)
    return _first_run(context, lambda: _times(context))


def finished_result(context: TaskContext, outcome: Outcome) -> JobsTaskResult:
    """Return the result as it will be when this last outcome is written."""
    if context.claimed.attempt > 1:
        result = as_task_result(context.task_result.record)
        _set(result, **_times(context, outcome))
    else:
        result = _first_run(context, lambda: _times(context, outcome))
    if outcome.error is not None:
        path, _, text, _ = outcome.error
        result.errors.append(TaskError(exception_class_path=path, traceback=text))
    is_successful = outcome.verdict == Verdict.SUCCESSFUL
    status = TaskResultStatus.SUCCESSFUL if is_successful else TaskResultStatus.FAILED
    _set(result, status=status)
    if outcome.return_value is not None:
        _set(result, _return_value=loads(outcome.return_value))
    if outcome.metadata is not None:
        _set(result, raw_metadata=task_of(context.claimed, outcome.metadata)[1])
    return result


def _first_run(context: TaskContext, times: Times) -> JobsTaskResult:
    claimed = context.claimed
    task, metadata = task_of(claimed, claimed.metadata)
    result: JobsTaskResult = object.__new__(JobsTaskResult)
    _set(
        result,
        task=task,
        id=claimed.id,
        status=TaskResultStatus.RUNNING,
        args=list(context.args),
        kwargs=dict(context.kwargs),
        backend=task.backend,
        errors=[],
        worker_ids=[context.worker_id],
        raw_metadata=metadata,
        _return_value=None,
        _times=times,
    )
    return result


def _times(context: TaskContext, outcome: Outcome | None = None) -> dict[str, Any]:
    running = as_task_result(context.task_result.record)
    finished_at = None
    if outcome is not None and running.last_attempted_at is not None:
        ran = timedelta(seconds=outcome.finished - outcome.started)
        finished_at = running.last_attempted_at + ran
    return {
        "enqueued_at": running.enqueued_at,
        "started_at": running.started_at,
        "last_attempted_at": running.last_attempted_at,
        "finished_at": finished_at,
    }


def _set(result: JobsTaskResult, **values: Any) -> None:
    for name, value in values.items():
        object.__setattr__(result, name, value)
