"""Says that a run begins and what it came to: signals and the log."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from asgiref.sync import sync_to_async

from django_jobs import events
from django_jobs.context import TaskContext
from django_jobs.definitions import TaskDefinition
from django_jobs.exceptions import TaskInterrupted
from django_jobs.records import ClaimedTask, Outcome, TaskRecord
from django_jobs.results import TaskResult
from django_jobs.signals import task_finished, task_started
from django_jobs.states import State, Verdict
from django_jobs.tracebacks import class_path

logger = logging.getLogger("django_jobs.task")

Definition = TaskDefinition[Any, Any]

_STATES = {
    Verdict.SUCCESSFUL: State.SUCCESSFUL,
    Verdict.FAILED: State.FAILED,
    Verdict.INTERRUPTED: State.READY,
}
_LEVELS = {
    Verdict.SUCCESSFUL: logging.INFO,
    Verdict.SNOOZED: logging.INFO,
    Verdict.FAILED: logging.ERROR,
}
_INTERRUPTED = class_path(TaskInterrupted)


def started(definition: Definition, context: TaskContext) -> None:
    """Tell that a run begins."""
    with _harmless():
        if definition.listener is not None:
            definition.listener.started(context)
        if task_started.has_listeners(definition):
            task_started.send_robust(definition, task_result=context.task_result)


async def astarted(definition: Definition, context: TaskContext) -> None:
    """Tell that a run begins, from the event loop."""
    if definition.listener or task_started.has_listeners(definition):
        await sync_to_async(started)(definition, context)


def finished(definition: Definition, context: TaskContext, outcome: Outcome) -> None:
    """Tell what a run came to; inside the handler of its exception, if it raised."""
    _log(context, outcome)
    with _harmless():
        if definition.listener is not None:
            definition.listener.finished(context, outcome)
        if task_finished.has_listeners(definition):
            result = _result(context, outcome)
            task_finished.send_robust(definition, task_result=result)


async def afinished(
    definition: Definition, context: TaskContext, outcome: Outcome
) -> None:
    """Tell what a run came to, from the event loop.

    ``sync_to_async`` hands ``sys.exc_info()`` on to receivers, ``asend_robust`` not.
    """
    if definition.listener or task_finished.has_listeners(definition):
        await sync_to_async(finished)(definition, context, outcome)
    else:
        _log(context, outcome)


@contextmanager
def _harmless() -> Iterator[None]:
    """Keep a database that does not answer now from failing the task."""
    try:
        yield
    except Exception:
        events.log(logger, logging.ERROR, "not_announced", exc_info=True)


def log_attempt(
    task: ClaimedTask, worker_id: str, outcome: Outcome, *, is_revoked: bool = False
) -> None:
    """Log what an attempt came to.

    ``is_revoked``: it was asked to leave since its task is revoked, which the task
    then is however the attempt failed.
    """
    verdict = outcome.verdict
    if is_revoked and verdict is not Verdict.SUCCESSFUL:
        verdict = Verdict.REVOKED
    level = _LEVELS.get(verdict, logging.WARNING)
    if not logger.isEnabledFor(level):
        return
    events.log(
        logger,
        level,
        "task_finished",
        task=task.name,
        task_id=task.id,
        attempt=task.attempt,
        verdict=str(verdict),
        duration_ms=round((outcome.finished - outcome.started) * 1000, 1),
        **_error_fields(outcome, verdict),
        also={"queue": task.queue_name, "worker": worker_id},
    )


def _log(context: TaskContext, outcome: Outcome) -> None:
    log_attempt(
        context.claimed, context.worker_id, outcome, is_revoked=context.is_revoked
    )


def _error_fields(outcome: Outcome, verdict: Verdict) -> dict[str, Any]:
    error = outcome.error
    # The interruption of a revoked task is what was asked for.
    is_expected = verdict is Verdict.REVOKED
    if error is None or (is_expected and error.exception_class == _INTERRUPTED):
        return {}
    return {"error": error.exception_class, "error_message": error.message[:200]}


def _result(context: TaskContext, outcome: Outcome) -> TaskResult[Any]:
    """Return the result as it will be when the outcome is written."""
    running = context.task_result
    record = running.record
    errors = list(record.errors)
    if outcome.error is not None:
        errors.append(outcome.error)
    state = _STATES.get(outcome.verdict, State.SCHEDULED)
    if context.is_revoked and state is not State.SUCCESSFUL:
        state = State.REVOKED
    return running.with_record(_ended(record, state, outcome)._replace(errors=errors))


def _ended(record: TaskRecord, state: State, outcome: Outcome) -> TaskRecord:
    ran = timedelta(seconds=outcome.finished - outcome.started)
    begun = record.last_attempted_at
    return record._replace(
        state=state,
        finished_at=begun + ran if state.is_finished and begun else None,
        return_value=outcome.return_value,
        metadata=outcome.metadata or record.metadata,
        reason=str(outcome.reason or ""),
    )
