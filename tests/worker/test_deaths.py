"""What becomes of the tasks of a child that is gone."""

from __future__ import annotations

from typing import Any

import pytest

from django_jobs import task
from django_jobs.records import Outcome
from django_jobs.states import Reason, Verdict
from django_jobs.worker import deaths
from django_jobs.worker.lanes import Assigned
from tests.worker.parts import claimed

called: list[object] = []


def _note(attempt: int, error: BaseException) -> float:
    called.append(attempt)
    return 77.0


@task(name="tests.deaths.careful", backoff=_note)
def careful() -> None: ...


@task(name="tests.deaths.patient", backoff=[33, 44])
def patient() -> None: ...


@task(name="tests.deaths.picky", retry_on=[KeyError])
def picky() -> None: ...


def die(
    killed_for: tuple[str, str] | None = None, own: bool = False, **changes: Any
) -> Outcome:
    """Return what becomes of a running task when its process is gone."""
    one = Assigned(claimed(**changes), 1.5, 1.0, started=10.0)
    if own and killed_for is not None:
        killed_for = (killed_for[0], one.task.id)
    outcome = deaths.outcome_of_death(one, "was killed by SIGSEGV", killed_for)
    assert (outcome.id, outcome.lease, outcome.started) == (one.task.id, 1, 10.0)
    return outcome


LIMIT = (deaths.TIME_LIMIT, "the culprit")
INTERRUPTED = (deaths.INTERRUPTED, "the culprit")


def test_a_crash_has_a_budget_of_its_own() -> None:
    outcome = die(attempt=3, max_attempts=3)
    assert (outcome.verdict, outcome.reason) == (Verdict.CRASHED, None)
    assert 0 < outcome.delay <= 2


def test_one_crash_too_many_makes_a_dead_letter() -> None:
    assert die(crashes=1).verdict is Verdict.CRASHED
    outcome = die(crashes=2)
    assert (outcome.verdict, outcome.reason) == (Verdict.FAILED, Reason.CRASHES)


def test_the_record_of_a_crash_says_how_the_process_ended() -> None:
    error = die().error
    assert error is not None
    assert error.exception_class == "django_jobs.exceptions.WorkerLost"
    assert error.message.endswith("was killed by SIGSEGV")


def test_a_task_over_its_limit_fails_as_if_it_had_raised() -> None:
    outcome = die(LIMIT, own=True)
    assert (outcome.verdict, outcome.reason) == (Verdict.RETRY, None)
    assert outcome.error is not None
    assert "its time limit of 1.5 s" in outcome.error.message


def test_a_task_over_its_limit_uses_its_attempts_up() -> None:
    outcome = die(LIMIT, own=True, attempt=3, max_attempts=3)
    assert (outcome.verdict, outcome.reason) == (Verdict.FAILED, Reason.ATTEMPTS)


def test_crashes_do_not_use_up_the_attempts_of_a_task_over_its_limit() -> None:
    outcome = die(LIMIT, own=True, attempt=3, crashes=1, max_attempts=3)
    assert outcome.verdict is Verdict.RETRY


def test_a_limit_is_worth_a_retry_whatever_retry_on_says() -> None:
    assert die(LIMIT, own=True, name=picky.name).verdict is Verdict.RETRY


def test_the_waits_of_a_definition_hold_after_a_limit() -> None:
    waits = [
        die(LIMIT, own=True, name=patient.name, attempt=attempt).delay
        for attempt in (1, 2)
    ]
    assert waits == [33, 44]


def test_a_backoff_that_is_a_function_is_not_called_in_the_parent() -> None:
    called.clear()
    outcome = die(LIMIT, own=True, name=careful.name)
    assert called == []
    assert outcome.verdict is Verdict.RETRY
    assert 0 < outcome.delay < 77


def test_a_task_that_nobody_knows_can_be_over_its_limit() -> None:
    assert die(LIMIT, own=True, name="never.seen").verdict is Verdict.RETRY


@pytest.mark.parametrize("killed_for", [LIMIT, INTERRUPTED, ("the worker stops", "")])
def test_an_innocent_neighbour_loses_nothing(killed_for: tuple[str, str]) -> None:
    outcome = die(killed_for, attempt=3, crashes=2)
    assert (outcome.verdict, outcome.reason) == (Verdict.INTERRUPTED, None)
    assert outcome.delay == 0


def test_a_task_that_ignored_its_interruption_is_interrupted() -> None:
    outcome = die(INTERRUPTED, own=True, attempt=3)
    assert outcome.verdict is Verdict.INTERRUPTED
    assert outcome.error is not None
    assert outcome.error.exception_class.endswith("TaskInterrupted")
