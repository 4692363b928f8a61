"""One attempt, from the claimed task to its outcome, as a short list of named steps."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from django.db import transaction

from django_jobs import events, retries
from django_jobs.conf import conf
from django_jobs.context import TaskContext
from django_jobs.definitions import TaskDefinition, get_definition
from django_jobs.exceptions import (
    InvalidArguments,
    InvalidResult,
    SoftTimeLimitExceeded,
    StaleLease,
    TaskInterrupted,
    UnknownTask,
)
from django_jobs.middleware import attempt_handler
from django_jobs.records import ClaimedTask, ErrorRecord, Outcome
from django_jobs.serializers import dumps
from django_jobs.states import Reason, Verdict
from django_jobs.store import get_store
from django_jobs.texts import clean
from django_jobs.tracebacks import class_path, record_error
from django_jobs.worker import announce
from django_jobs.worker.atomic import run_atomically
from django_jobs.worker.capture import LogTail, new_tail
from django_jobs.worker.leftovers import (
    end_transactions,
    left_open,
    open_transactions,
)
from django_jobs.worker.timeouts import Interruptions

logger = logging.getLogger("django_jobs")

#: Awaits a coroutine so that it can be interrupted: (task id, soft limit, coroutine).
Watched = Callable[[str, float | None, Coroutine[Any, Any, Any]], Awaitable[Any]]


@dataclass(slots=True)
class Attempt:
    """What is known of the attempt under way."""

    task: ClaimedTask
    definition: TaskDefinition[Any, Any]
    context: TaskContext
    tail: LogTail
    started: float
    soft_time_limit: float | None
    database: str
    #: Has an atomic task watched again, at the start of each run of its body.
    rewatch: Callable[[Attempt], None]
    #: Completes an atomic task in the transaction of its body.
    complete: Callable[[Outcome], None]
    #: When the soft limit is over, monotonic.
    soft_deadline: float | None = None
    #: It was completed in a transaction, whether or not that has committed.
    was_completed: bool = False
    #: The outcome, once an atomic task has completed itself.
    recorded: Outcome | None = None
    #: Its transaction has committed.
    is_committed: bool = False

    def note_commit(self) -> None:
        self.is_committed = True


#: For the innermost layer of the onion, which is handed the task's context only.
_attempt: ContextVar[Attempt] = ContextVar("django_jobs_attempt")


class Executor:
    """Runs claimed tasks; whatever they do, an outcome comes back."""

    def __init__(
        self, worker_id: str, database: str, interruptions: Interruptions
    ) -> None:
        self.worker_id = worker_id
        self.database = database
        self.interruptions = interruptions
        self._contexts: dict[str, TaskContext] = {}

    def ask_to_stop(self, task_id: str, is_revoked: bool = False) -> None:
        """Make ``should_stop`` of a running task's context true."""
        if (context := self._contexts.get(task_id)) is not None:
            context.is_revoked = is_revoked
            context.stop()

    def run(self, task: ClaimedTask) -> Outcome:
        """Run a sync task in this thread."""
        started = time.monotonic()
        try:
            attempt = self._prepare(task, started)
        except Exception as error:
            return self._not_run(task, error, started)
        open_before = open_transactions()
        try:
            with attempt.context.active():
                return self._run(attempt, open_before)
        except BaseException as error:
            self.interruptions.leave(task.id)
            end_transactions(open_transactions() - open_before)
            return self._failed(attempt, error)
        finally:
            # Once more, for an exception that came out of the watch's own exit.
            self.interruptions.leave(task.id)
            self._contexts.pop(task.id, None)

    async def run_async(self, task: ClaimedTask, watched: Watched) -> Outcome:
        """Run an ``async def`` task on the running loop."""
        started = time.monotonic()
        try:
            attempt = self._prepare(task, started)
        except Exception as error:
            return self._not_run(task, error, started)
        try:
            with attempt.context.active():
                return await self._run_async(attempt, watched)
        except BaseException as error:
            outcome = _failure_somehow(attempt, error)
            await announce.afinished(attempt.definition, attempt.context, outcome)
            return outcome
        finally:
            self._contexts.pop(task.id, None)

    # -- the steps -------------------------------------------------------------------

    def _not_run(
        self, task: ClaimedTask, error: BaseException, started: float
    ) -> Outcome:
        """Decide about a task that could not even be called."""
        if isinstance(error, UnknownTask):
            return Outcome(task.id, task.lease, Verdict.UNKNOWN, delay=5.0)
        outcome = Outcome(
            task.id,
            task.lease,
            Verdict.FAILED,
            started,
            time.monotonic(),
            reason=Reason.CORRUPT,
            error=record_error(error, conf().ERROR_MAX_BYTES),
        )
        announce.log_attempt(task, self.worker_id, outcome)
        return outcome

    def _prepare(self, task: ClaimedTask, started: float) -> Attempt:
        definition = get_definition(task.name)
        limit = task.time_limit or definition.time_limit
        deadline = None if limit is None else started + limit
        context = TaskContext(task, self.worker_id, deadline, self.database)
        # Read here, so that a row that cannot be read is told from a task that fails.
        context.args, context.kwargs, context.headers  # noqa: B018
        self._contexts[task.id] = context
        soft_limit = definition.soft_time_limit
        attempt = Attempt(
            task=task,
            definition=definition,
            context=context,
            tail=new_tail(),
            started=started,
            soft_time_limit=soft_limit,
            database=self.database,
            rewatch=self._rewatch,
            complete=self._complete,
        )
        _attempt.set(attempt)
        return attempt

    def _run(self, attempt: Attempt, open_before: set[str]) -> Outcome:
        announce.started(attempt.definition, attempt.context)
        function = _call_atomically if attempt.definition.atomic else _call
        handler = attempt_handler(function, is_async=False)
        if attempt.soft_time_limit is not None:
            attempt.soft_deadline = time.monotonic() + attempt.soft_time_limit
        with self.interruptions.watch(attempt.task.id, attempt.soft_time_limit):
            value = handler(attempt.context)
        if aliases := open_transactions() - open_before:
            raise left_open(aliases)
        outcome = attempt.recorded or _success(attempt, value)
        announce.finished(attempt.definition, attempt.context, outcome)
        return outcome

    def _rewatch(self, attempt: Attempt) -> None:
        """Enter the watch that ``_complete`` has left, for what is left of the limit.

        TaskInterrupted when that was asked for in between, and nobody was told.
        """
        left = attempt.soft_deadline
        if left is not None:
            # Never 0: that would be no limit.
            left = max(left - time.monotonic(), 0.001)
        self.interruptions.enter(attempt.task.id, left)
        # Out of time is for the parent to say.
        if attempt.context.should_stop() and attempt.context.remaining() > 0:
            raise TaskInterrupted

    def _complete(self, outcome: Outcome) -> None:
        # From here on no limit may interrupt: what is committed is done.
        self.interruptions.leave(outcome.id)
        if not get_store(self.database).complete_here(self.worker_id, outcome):
            raise StaleLease(f"task {outcome.id} is no longer ours")

    @staticmethod
    def _failed(attempt: Attempt, error: BaseException) -> Outcome:
        if attempt.is_committed and attempt.recorded is not None:
            # By a callback of on_commit: what is committed is done.
            _say(attempt, "callback_failed")
            return attempt.recorded
        # Called while the error is being handled: receivers may ask for it.
        outcome = _failure_somehow(attempt, error)
        announce.finished(attempt.definition, attempt.context, outcome)
        return outcome

    async def _run_async(self, attempt: Attempt, watched: Watched) -> Outcome:
        await announce.astarted(attempt.definition, attempt.context)
        call = attempt_handler(_acall, is_async=True)(attempt.context)
        value = await watched(attempt.task.id, attempt.soft_time_limit, call)
        outcome = _success(attempt, value)
        await announce.afinished(attempt.definition, attempt.context, outcome)
        return outcome


def _call(context: TaskContext) -> Any:
    return get_definition(context.claimed.name).run(context)


async def _acall(context: TaskContext) -> Any:
    return await get_definition(context.claimed.name).run(context)


def _call_atomically(context: TaskContext) -> Any:
    """Run the task and complete it in one transaction on the queue's database."""
    attempt = _attempt.get()
    value = None

    def work() -> None:
        nonlocal value
        # The first callback of the transaction, so that no other can hide it.
        transaction.on_commit(attempt.note_commit, using=attempt.database)
        if attempt.was_completed:
            attempt.rewatch(attempt)
            attempt.was_completed = False
        value = attempt.definition.run(context)
        outcome = _success(attempt, value)
        attempt.was_completed = True
        attempt.complete(outcome)
        attempt.recorded = outcome._replace(recorded=True)

    run_atomically(attempt.database, work, lambda: attempt.is_committed)
    return value


# -- outcomes ----------------------------------------------------------------------


def _success(attempt: Attempt, value: Any) -> Outcome:
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


def _say(attempt: Attempt, event: str) -> None:
    """Log an error of ours about a run, while the exception is being handled."""
    task = attempt.task
    events.log(
        logger,
        logging.ERROR,
        event,
        exc_info=True,
        task=task.name,
        task_id=task.id,
    )


def _failure_somehow(attempt: Attempt, error: BaseException) -> Outcome:
    """Decide about a run that raised, whatever its error does when it is looked at."""
    try:
        return _failure(attempt, error)
    except BaseException as problem:
        _say(attempt, "error_unreadable")
        words = (
            f"{type(error).__name__} (looking at it raised {type(problem).__name__})"
        )
        return Outcome(
            attempt.task.id,
            attempt.task.lease,
            Verdict.FAILED,
            attempt.started,
            time.monotonic(),
            reason=Reason.CORRUPT,
            error=ErrorRecord(class_path(type(error)), words, "", ""),
        )


def _failure(attempt: Attempt, error: BaseException) -> Outcome:
    """Decide about a run that raised."""
    task = attempt.task
    verdict, delay, reason = retries.decide(
        error,
        attempt.definition.policy,
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
    with suppress(Exception):  # it may be what the task failed with
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
    return None if text is None else clean(text, conf().LOG_MAX_BYTES)
