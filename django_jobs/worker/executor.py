"""One attempt, from the claimed task to its outcome, as a short list of named steps."""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import ContextVar
from typing import Any

from django.db import DatabaseError, transaction

from django_jobs.conf import conf
from django_jobs.context import TaskContext
from django_jobs.definitions import get_definition
from django_jobs.exceptions import (
    Snooze,
    StaleLease,
    TaskInterrupted,
    UnknownTask,
)
from django_jobs.failpoints import reach
from django_jobs.middleware import attempt_handler
from django_jobs.records import ClaimedTask, Outcome
from django_jobs.states import Reason, Verdict
from django_jobs.store import get_store
from django_jobs.store.errors import is_not_migrated
from django_jobs.tracebacks import record_error
from django_jobs.worker import announce
from django_jobs.worker.atomic import has_committed, run_atomically
from django_jobs.worker.attempt import Attempt
from django_jobs.worker.capture import new_tail
from django_jobs.worker.leftovers import (
    end_transactions,
    left_open,
)
from django_jobs.worker.outage import missing_tables
from django_jobs.worker.outcomes import failure, say, success
from django_jobs.worker.strays import UNKNOWN_WAIT
from django_jobs.worker.tidying import is_shortage
from django_jobs.worker.timeouts import Interruptions
from django_jobs.worker.transactions import open_transactions

#: Seconds before an atomic task is run again that could not be completed since a table
#: or a column of ours is missing.
NOT_MIGRATED_WAIT = 5.0

#: Awaits a coroutine so that it can be interrupted: (task id, soft limit, coroutine).
Watched = Callable[[str, float | None, Coroutine[Any, Any, Any]], Awaitable[Any]]


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
        self._unmigrated = missing_tables(database)
        #: An attempt failed since the process is short of something.
        self.is_short = False

    @property
    def is_busy(self) -> bool:
        """An attempt is under way."""
        return bool(self._contexts)

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
            self.is_short = self.is_short or is_shortage(error)
            outcome = failure(attempt, error)
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
            wait = UNKNOWN_WAIT * random.uniform(0.5, 1.5)  # noqa: S311 - jitter
            return Outcome(task.id, task.lease, Verdict.UNKNOWN, delay=wait)
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
            tail=new_tail(conf().LOG_MAX_BYTES),
            started=started,
            soft_time_limit=soft_limit,
            database=self.database,
            rewatch=self._rewatch,
            complete=self._complete,
        )
        _attempt.set(attempt)
        return attempt

    def _run(self, attempt: Attempt, open_before: set[str]) -> Outcome:
        reach("child.before_run")
        announce.started(attempt.definition, attempt.context)
        function = _call_atomically if attempt.definition.atomic else _call
        handler = attempt_handler(function, is_async=False)
        if attempt.soft_time_limit is not None:
            attempt.soft_deadline = time.monotonic() + attempt.soft_time_limit
        with self.interruptions.watch(attempt.task.id, attempt.soft_time_limit):
            value = handler(attempt.context)
        if aliases := open_transactions() - open_before:
            raise left_open(aliases)
        outcome = attempt.recorded or success(attempt, value)
        announce.finished(attempt.definition, attempt.context, outcome)
        reach("child.after_run")
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
        reach("atomic.before_complete")
        try:
            is_ours = get_store(self.database).complete_here(self.worker_id, outcome)
        except DatabaseError as error:
            if not is_not_migrated(error):
                raise
            # No fault of the task, whose writes are rolled back with this.
            self._unmigrated.failed("complete", error, NOT_MIGRATED_WAIT)
            raise Snooze(NOT_MIGRATED_WAIT) from error
        self._unmigrated.succeeded("complete")
        if not is_ours:
            raise StaleLease(f"task {outcome.id} is no longer ours")
        reach("atomic.after_complete")

    def _failed(self, attempt: Attempt, error: BaseException) -> Outcome:
        self.is_short = self.is_short or is_shortage(error)
        if attempt.is_committed and attempt.recorded is not None:
            # By a callback of on_commit: what is committed is done.
            say(attempt, "callback_failed")
            outcome = attempt.recorded
        else:
            outcome = failure(attempt, error)
        # Called while the error is being handled: receivers may ask for it.
        announce.finished(attempt.definition, attempt.context, outcome)
        return outcome

    async def _run_async(self, attempt: Attempt, watched: Watched) -> Outcome:
        reach("child.before_run")
        await announce.astarted(attempt.definition, attempt.context)
        call = attempt_handler(_acall, is_async=True)(attempt.context)
        value = await watched(attempt.task.id, attempt.soft_time_limit, call)
        outcome = success(attempt, value)
        await announce.afinished(attempt.definition, attempt.context, outcome)
        reach("child.after_run")
        return outcome


def _call(context: TaskContext) -> Any:
    value = get_definition(context.claimed.name).run(context)
    reach("child.mid_run")
    return value


async def _acall(context: TaskContext) -> Any:
    value = await get_definition(context.claimed.name).run(context)
    reach("child.mid_run")
    return value


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
            attempt.was_completed, attempt.recorded = False, None
        value = attempt.definition.run(context)
        outcome = success(attempt, value)
        attempt.was_completed = True
        attempt.complete(outcome)
        attempt.recorded = outcome._replace(recorded=True)

    try:
        run_atomically(attempt.database, work, lambda: attempt.is_committed)
    except Exception:
        is_unanswered = attempt.recorded is not None and not attempt.is_committed
        if not is_unanswered or not has_committed(attempt.database, context):
            raise
    reach("atomic.after_commit")
    return value
