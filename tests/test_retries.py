"""What follows from the end of a run: waits, and the decision itself."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from django_jobs.exceptions import (
    InvalidResult,
    Reject,
    Retry,
    Snooze,
    SoftTimeLimitExceeded,
    TaskInterrupted,
    TimeLimitExceeded,
)
from django_jobs.retries import Decision, RetryPolicy, decide, decide_crash
from django_jobs.states import Reason, Verdict

ERROR = ValueError("no")


def decided(
    error: BaseException | None,
    policy: RetryPolicy | None = None,
    *,
    attempt: int = 1,
    crashes: int = 0,
    max_attempts: int = 3,
) -> Decision:
    return decide(
        error,
        policy or RetryPolicy(),
        attempt=attempt,
        crashes=crashes,
        max_attempts=max_attempts,
    )


# -- waits -------------------------------------------------------------------------


def test_the_wait_doubles_from_base_to_cap() -> None:
    policy = RetryPolicy(base=2.0, cap=100.0)
    for attempt, longest in [(1, 2.0), (2, 4.0), (3, 8.0), (7, 100.0), (500, 100.0)]:
        waits = [policy.delay(attempt, ERROR) for _ in range(200)]
        assert all(longest / 2 <= wait <= longest for wait in waits)
        assert len(set(waits)) > 100, "there is jitter"


def test_jitter_never_gives_zero() -> None:
    assert min(RetryPolicy(base=0.0).delay(1, ERROR) for _ in range(1000)) > 0


def test_an_attempt_number_beyond_all_bounds_does_no_harm() -> None:
    assert RetryPolicy().delay(10**9, ERROR) <= 3600


def test_a_list_gives_the_waits_one_by_one_and_repeats_the_last() -> None:
    policy = RetryPolicy(backoff=[1, timedelta(seconds=5), 30])
    assert [policy.delay(n, ERROR) for n in (1, 2, 3, 4, 99)] == [1, 5, 30, 30, 30]


def test_a_function_gets_the_attempt_and_its_error() -> None:
    seen: list[Any] = []

    def backoff(attempt: int, error: BaseException) -> float:
        seen.append((attempt, error))
        return 7

    assert RetryPolicy(backoff=backoff).delay(2, ERROR) == 7
    assert seen == [(2, ERROR)]


def broken(attempt: int, error: BaseException) -> float:
    raise RuntimeError("broken backoff")


def leaving(attempt: int, error: BaseException) -> float:
    raise SystemExit


RUBBISH = [None, "5", -1, float("nan"), float("inf"), True, 10**30, []]


@pytest.mark.parametrize(
    "backoff",
    [
        broken,
        leaving,
        *[lambda attempt, error, value=value: value for value in RUBBISH],
    ],
)
def test_a_function_that_fails_or_returns_rubbish_is_replaced_by_the_default(
    backoff: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    wait = RetryPolicy(base=8.0, backoff=backoff).delay(1, ERROR)
    assert 4.0 <= wait <= 8.0
    assert "event=backoff_failed attempt=1" in caplog.text


@pytest.mark.parametrize(
    "given",
    [
        {"base": -1},
        {"base": "1"},
        {"cap": None},
        {"backoff": []},
        {"backoff": ["soon"]},
        {"backoff": lambda: 1},
        {"backoff": 5},
    ],
)
def test_a_policy_that_cannot_work_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError)):
        RetryPolicy(**given)


# -- decisions ---------------------------------------------------------------------


def test_a_run_that_returned_is_successful() -> None:
    assert decided(None) == Decision(Verdict.SUCCESSFUL)


@pytest.mark.parametrize(
    "error",
    [
        ERROR,
        SystemExit(1),
        KeyboardInterrupt(),
        GeneratorExit(),
        SoftTimeLimitExceeded(),
        TimeLimitExceeded(),
        MemoryError(),
        RecursionError(),
        BaseExceptionGroup("several", [KeyboardInterrupt()]),
    ],
    ids=repr,
)
def test_whatever_is_raised_is_a_failure_that_is_tried_again(
    error: BaseException,
) -> None:
    verdict, delay, reason = decided(error, RetryPolicy(base=10.0), attempt=2)
    assert (verdict, reason) == (Verdict.RETRY, None)
    assert 10.0 <= delay <= 20.0


def test_the_last_attempt_makes_a_dead_letter() -> None:
    assert decided(ERROR, attempt=3) == Decision(Verdict.FAILED, reason=Reason.ATTEMPTS)


def test_crashes_use_up_no_attempts() -> None:
    assert decided(ERROR, attempt=4, crashes=2).verdict == Verdict.RETRY
    assert decided(ERROR, attempt=5, crashes=2).reason == Reason.ATTEMPTS


def test_crashes_do_not_prolong_the_wait() -> None:
    policy = RetryPolicy(backoff=[1, 2, 3])
    assert decided(ERROR, policy, attempt=3, crashes=2).delay == 1


def test_retry_says_when() -> None:
    assert decided(Retry(after=timedelta(seconds=9))) == Decision(Verdict.RETRY, 9.0)
    assert decided(Retry(after=0)) == Decision(Verdict.RETRY, 0.0)


def test_retry_without_a_time_takes_the_backoff() -> None:
    assert decided(Retry(), RetryPolicy(backoff=[4])) == Decision(Verdict.RETRY, 4.0)


def test_retry_counts_as_an_attempt() -> None:
    assert decided(Retry(after=1), attempt=3).reason == Reason.ATTEMPTS


def test_retry_asks_no_lists_of_errors() -> None:
    policy = RetryPolicy(retry_on=(OSError,), give_up_on=(Exception,))
    assert decided(Retry(after=1), policy).verdict == Verdict.RETRY


def test_snooze_works_even_in_the_last_attempt() -> None:
    assert decided(Snooze(60), attempt=3) == Decision(Verdict.SNOOZED, 60.0)


def test_reject_is_the_end() -> None:
    assert decided(Reject("never")) == Decision(Verdict.FAILED, reason=Reason.REJECTED)


def test_a_result_that_cannot_be_stored_is_the_end() -> None:
    policy = RetryPolicy(retry_on=(ValueError,))
    answer = Decision(Verdict.FAILED, reason=Reason.RESULT)
    assert decided(InvalidResult("no JSON"), policy) == answer


def test_an_interruption_is_no_failure() -> None:
    assert decided(TaskInterrupted(), attempt=3) == Decision(Verdict.INTERRUPTED)


def test_errors_to_give_up_on_are_not_tried_again() -> None:
    policy = RetryPolicy(give_up_on=(ValueError,))
    assert decided(ERROR, policy).reason == Reason.GAVE_UP
    assert decided(KeyError(), policy).verdict == Verdict.RETRY


def test_only_errors_to_retry_on_are_tried_again() -> None:
    policy = RetryPolicy(retry_on=(OSError,))
    assert decided(ConnectionError(), policy).verdict == Verdict.RETRY
    assert decided(ERROR, policy).reason == Reason.GAVE_UP


def test_giving_up_beats_retrying() -> None:
    policy = RetryPolicy(retry_on=(OSError,), give_up_on=(FileNotFoundError,))
    assert decided(FileNotFoundError(), policy).reason == Reason.GAVE_UP
    assert decided(PermissionError(), policy).verdict == Verdict.RETRY


@pytest.mark.parametrize("error", [SoftTimeLimitExceeded(), TimeLimitExceeded()])
def test_a_limit_of_time_is_tried_again_whatever_retry_on_says(
    error: BaseException,
) -> None:
    assert decided(error, RetryPolicy(retry_on=(OSError,))).verdict == Verdict.RETRY


def test_a_limit_of_time_can_be_given_up_on() -> None:
    policy = RetryPolicy(give_up_on=(SoftTimeLimitExceeded,))
    assert decided(SoftTimeLimitExceeded(), policy).reason == Reason.GAVE_UP


def test_classes_of_the_task_join_those_of_the_policy() -> None:
    policy = RetryPolicy(base=1.0, give_up_on=(KeyError,))
    joined = policy.and_only((OSError,), (FileNotFoundError,))
    assert joined.give_up_on == (KeyError, FileNotFoundError)
    assert (joined.retry_on, joined.base) == ((OSError,), 1.0)


# -- crashes -----------------------------------------------------------------------


@pytest.mark.parametrize("crashes", [1, 2])
def test_a_crash_within_the_budget_is_run_again_later(crashes: int) -> None:
    verdict, delay, reason = decide_crash(crashes, 3)
    assert (verdict, reason) == (Verdict.CRASHED, None)
    assert 2**crashes / 2 <= delay <= 2**crashes


def test_a_crash_that_uses_up_the_budget_makes_a_dead_letter() -> None:
    assert decide_crash(3, 3) == Decision(Verdict.FAILED, reason=Reason.CRASHES)
