"""What follows from the end of a run: the policy of retries and the pure decision."""

from __future__ import annotations

import inspect
import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import NamedTuple

from django_jobs import events
from django_jobs.exceptions import (
    InvalidResult,
    Reject,
    Retry,
    Snooze,
    SoftTimeLimitExceeded,
    TaskInterrupted,
    TimeLimitExceeded,
    seconds,
)
from django_jobs.states import Reason, Verdict

logger = logging.getLogger("django_jobs")

Delay = float | timedelta
#: Called with the number of the failed attempt, from 1, and its error.
BackoffFunction = Callable[[int, BaseException], Delay]
Backoff = BackoffFunction | Sequence[Delay]
ErrorClasses = tuple[type[BaseException], ...]

#: Seconds; no jitter and no base makes a backoff shorter.
_SHORTEST = 0.001
_LONGEST_DOUBLING = 60


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long to wait after a failure, and which failures are worth another attempt.

    Without ``backoff`` the wait doubles from ``base`` to ``cap`` seconds, times a
    random factor from 0.5 to 1.
    """

    base: float = 5.0
    cap: float = 3600.0
    #: A function, or the waits one by one; the last one is repeated.
    backoff: Backoff | None = None
    #: Only these are tried again; empty means all.
    retry_on: ErrorClasses = ()
    #: These are never tried again, whatever ``retry_on`` says.
    give_up_on: ErrorClasses = ()

    def __post_init__(self) -> None:
        seconds(self.base), seconds(self.cap)
        if callable(self.backoff):
            _check_arguments(self.backoff)
        elif self.backoff is not None and not [seconds(wait) for wait in self.backoff]:
            raise ValueError("a list of waits must not be empty")

    def delay(self, attempt: int, error: BaseException) -> float:
        """Return the seconds to wait after this failed attempt, counted from 1."""
        if self.backoff is None:
            return self.exponential(attempt)
        try:
            return self._chosen(self.backoff, attempt, error)
        except (Exception, SystemExit):
            # The default is used instead.
            events.log(
                logger, logging.ERROR, "backoff_failed", attempt=attempt, exc_info=True
            )
            return self.exponential(attempt)

    def exponential(self, attempt: int) -> float:
        doubled = self.base * 2.0 ** min(attempt - 1, _LONGEST_DOUBLING)
        return max(min(self.cap, doubled) * _jitter(), _SHORTEST)

    def gives_up_on(self, error: BaseException) -> bool:
        if isinstance(error, self.give_up_on):
            return True
        # A limit of time says nothing of the kind of error, so retry_on is not asked.
        is_limit = isinstance(error, (SoftTimeLimitExceeded, TimeLimitExceeded))
        return bool(self.retry_on) and not (
            is_limit or isinstance(error, self.retry_on)
        )

    def and_only(self, retry_on: ErrorClasses, give_up_on: ErrorClasses) -> RetryPolicy:
        """Return the policy with these classes in addition to its own."""
        if not retry_on and not give_up_on:
            return self
        return replace(
            self,
            retry_on=self.retry_on + retry_on,
            give_up_on=self.give_up_on + give_up_on,
        )

    @staticmethod
    def _chosen(backoff: Backoff, attempt: int, error: BaseException) -> float:
        if callable(backoff):
            return seconds(backoff(attempt, error))
        return seconds(backoff[min(attempt, len(backoff)) - 1])


def policy_or_default(base: float, cap: float, backoff: Backoff | None) -> RetryPolicy:
    """Return a policy of these; the default one when they make none.

    It is asked for when a task has failed: what is wrong with the waits must not cost
    the task its retries.
    """
    try:
        return RetryPolicy(base, cap, backoff)
    except Exception:
        events.log(logger, logging.ERROR, "policy_failed", exc_info=True)
        return RetryPolicy()


def _check_arguments(backoff: BackoffFunction) -> None:
    try:
        signature = inspect.signature(backoff)
    except ValueError:  # some that are written in C have none
        return
    signature.bind(1, Exception())


class Decision(NamedTuple):
    """What is to become of the task."""

    verdict: Verdict
    delay: float = 0.0  #: seconds until the next run
    reason: Reason | None = None  #: of a dead letter


def decide(
    error: BaseException | None,
    policy: RetryPolicy,
    *,
    attempt: int,
    crashes: int,
    max_attempts: int,
) -> Decision:
    """Decide by what the run raised (None: it returned) and by the task's numbers.

    Attempts that crashed have a budget of their own and do not count here.
    """
    match error:
        case None:
            return Decision(Verdict.SUCCESSFUL)
        case TaskInterrupted():
            return Decision(Verdict.INTERRUPTED)
        case Snooze():
            return Decision(Verdict.SNOOZED, error.after)
        case InvalidResult() | Reject():  # a bad result would be the same once more
            is_result = isinstance(error, InvalidResult)
            return _dead(Reason.RESULT if is_result else Reason.REJECTED)
    failures = max(attempt - crashes, 1)
    if not isinstance(error, Retry) and policy.gives_up_on(error):
        return _dead(Reason.GAVE_UP)
    if failures >= max_attempts:
        return _dead(Reason.ATTEMPTS)
    if isinstance(error, Retry) and error.after is not None:
        return Decision(Verdict.RETRY, error.after)
    return Decision(Verdict.RETRY, policy.delay(failures, error))


def decide_crash(crashes: int, budget: int) -> Decision:
    """Decide by the number of crashes, the present one included."""
    if crashes >= budget:
        return _dead(Reason.CRASHES)
    return Decision(Verdict.CRASHED, 2.0 ** min(crashes, _LONGEST_DOUBLING) * _jitter())


def _dead(reason: Reason) -> Decision:
    return Decision(Verdict.FAILED, reason=reason)


def _jitter() -> float:
    return random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, keeps no secret
