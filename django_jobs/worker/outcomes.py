"""What an attempt came to: the outcome of the value or the error that it ended with."""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from dataclasses import replace
from typing import Any

from django_jobs import events, retries
from django_jobs.conf import conf
from django_jobs.definitions import TaskDefinition
from django_jobs.exceptions import (
    InvalidArguments,
    InvalidResult,
    JobsError,
    SoftTimeLimitExceeded,
)
from django_jobs.records import Outcome
from django_jobs.serializers import dumps
from django_jobs.states import Verdict
from django_jobs.texts import clean
from django_jobs.tracebacks import name_of, record_error
from django_jobs.worker.attempt import Attempt

logger = logging.getLogger("django_jobs")


def success(attempt: Attempt, value: Any) -> Outcome:
    """Return the outcome of a value; InvalidResult when it cannot be stored."""
    text = _encode(attempt.definition, value)
    return Outcome(
        attempt.task.id,
        attempt.task.lease,
        Verdict.SUCCESSFUL,
        attempt.started,
        time.monotonic(),
        text,
        log=_log_of(attempt),
        metadata=attempt.context.changed_metadata(),
        retention=attempt.definition.result_retention,
    )


def _encode(definition: TaskDefinition[Any, Any], value: Any) -> str | None:
    """Return the value as JSON; InvalidResult when it cannot be stored."""
    if not definition.store_result:
        return None
    try:
        value = definition.to_store(value)
    except Exception as error:
        raise InvalidResult("the return value cannot be stored") from error
    try:
        text = dumps(value, path="return value", max_depth=conf().PAYLOAD_MAX_DEPTH)
    except InvalidArguments as error:
        raise InvalidResult(str(error)) from None
    if len(text) > (most := conf().RESULT_MAX_BYTES):
        raise InvalidResult(
            f"the return value has {len(text)} bytes of JSON, over RESULT_MAX_BYTES "
            f"({most}); store it and return its key, or write store_result=False"
        )
    return text


def say(attempt: Attempt, event: str) -> None:
    """Log an error of ours about a run, while the exception is being handled."""
    fields: dict[str, Any] = {"task": attempt.task.name, "task_id": attempt.task.id}
    try:
        events.log(logger, logging.ERROR, event, exc_info=True, **fields)
    except BaseException:  # somebody's handler has looked at it
        events.log(logger, logging.ERROR, event, **fields)


def failure(attempt: Attempt, error: BaseException) -> Outcome:
    """Decide about a run that raised, whatever its error does when it is looked at."""
    try:
        return _decide(attempt, error, attempt.definition.policy)
    except BaseException as problem:
        say(attempt, "error_unreadable")
        words = f"looking at the error raised {name_of(type(problem))}"
    # Another attempt may be worth while all the same; no code of the task is asked.
    policy = replace(attempt.definition.policy, backoff=None)
    outcome = _decide(attempt, JobsError(words), policy)
    told = record_error(error, conf().ERROR_MAX_BYTES)
    return outcome._replace(error=told._replace(message=words))


def _decide(
    attempt: Attempt, error: BaseException, policy: retries.RetryPolicy
) -> Outcome:
    """Decide about a run that raised."""
    task = attempt.task
    verdict, delay, reason = retries.decide(
        error,
        policy,
        attempt=task.attempt,
        crashes=task.crashes,
        max_attempts=task.max_attempts,
    )
    if isinstance(error, InvalidResult) and error.__cause__ is not None:
        error = error.__cause__  # the one that Django's contract promises
    limit = attempt.soft_time_limit
    if isinstance(error, SoftTimeLimitExceeded) and not error.args and limit:
        # It is raised by its class, which is all that a thread can be sent.
        error.args = (f"longer than its soft limit of {limit:g} s",)
    metadata = None
    with suppress(BaseException):  # it may be what the task failed with
        metadata = attempt.context.changed_metadata()
    return Outcome(
        task.id,
        task.lease,
        verdict,
        attempt.started,
        time.monotonic(),
        delay=delay,
        reason=reason,
        error=record_error(error, conf().ERROR_MAX_BYTES),
        log=_log_of(attempt),
        metadata=metadata,
    )


def _log_of(attempt: Attempt) -> str | None:
    text = attempt.tail.text()
    return clean(text or "", conf().LOG_MAX_BYTES) or None
