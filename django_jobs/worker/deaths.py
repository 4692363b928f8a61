"""What becomes of the tasks of a child that is gone."""

from __future__ import annotations

import time
from dataclasses import replace

from django_jobs import retries
from django_jobs.conf import conf
from django_jobs.definitions import find_definition
from django_jobs.exceptions import TaskInterrupted, TimeLimitExceeded, WorkerLost
from django_jobs.records import ErrorRecord, Outcome
from django_jobs.retries import RetryPolicy
from django_jobs.states import Reason, Verdict
from django_jobs.texts import clean
from django_jobs.tracebacks import record_error
from django_jobs.worker.lanes import Assigned

#: Why the parent killed a child.
TIME_LIMIT = "time limit"
INTERRUPTED = "interrupted"
LEASE_LOST = "the lease is over"


def outcome_of_death(
    assigned: Assigned, how: str, killed_for: tuple[str, str] | None, fault: str = ""
) -> Outcome:
    """Decide about a task that was running in a child when that died.

    ``how`` says in words how the process ended; ``killed_for`` why we killed it and
    for which task, None when it died by itself; ``fault`` what it said before.
    """
    if killed_for is None:
        return _crashed(assigned, how, fault)
    reason, culprit = killed_for
    if reason == TIME_LIMIT and culprit == assigned.task.id:
        return _too_long(assigned)
    if reason == LEASE_LOST:
        # As the one who rescues it would decide.
        error = WorkerLost(f"its process was killed: {reason}")
        return _outcome(assigned, Verdict.CRASHED, record_error(error))
    # An innocent neighbour in the same process, or an interruption that was ignored.
    interruption = TaskInterrupted(f"its process was killed: {reason}")
    return _outcome(assigned, Verdict.INTERRUPTED, record_error(interruption))


def _crashed(assigned: Assigned, how: str, fault: str) -> Outcome:
    verdict, delay, reason = retries.decide_crash(
        assigned.task.crashes + 1, conf().CRASH_BUDGET
    )
    error = record_error(WorkerLost(f"the process that ran the task {how}"))
    if fault:
        error = error._replace(traceback=clean(fault, conf().ERROR_MAX_BYTES))
    return _outcome(assigned, verdict, error, delay, reason)


def _too_long(assigned: Assigned) -> Outcome:
    definition = find_definition(assigned.task.name)
    error = TimeLimitExceeded(
        f"ran longer than its time limit of {assigned.time_limit:g} s; "
        "its process was killed"
    )
    policy = definition.policy if definition else RetryPolicy()
    if callable(policy.backoff):
        # The parent runs no user code.
        policy = replace(policy, backoff=None)
    verdict, delay, reason = retries.decide(
        error,
        policy,
        attempt=assigned.task.attempt,
        crashes=assigned.task.crashes,
        max_attempts=assigned.task.max_attempts,
    )
    return _outcome(assigned, verdict, record_error(error), delay, reason)


def _outcome(
    assigned: Assigned,
    verdict: Verdict,
    error: ErrorRecord,
    delay: float = 0.0,
    reason: Reason | None = None,
) -> Outcome:
    return Outcome(
        id=assigned.task.id,
        lease=assigned.task.lease,
        verdict=verdict,
        started=assigned.started,
        finished=time.monotonic(),
        delay=delay,
        reason=reason,
        error=error,
    )
