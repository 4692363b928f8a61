"""Failures: retries, dead letters, and what a task may raise."""

from __future__ import annotations

from pathlib import Path

import pytest

from django_jobs.control import requeue
from django_jobs.models import Attempt, DeadLetter, Result
from django_jobs.states import Reason, State
from tests.processes import tasks
from tests.processes.conftest import StartWorker
from tests.processes.harness import census, finished, lines, wait_for

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_task_that_fails_for_good_becomes_a_dead_letter(
    start_worker: StartWorker,
) -> None:
    start_worker("--processes", "1")
    result = tasks.fail.enqueue("no luck at all")
    wait_for(finished(1))
    letter = DeadLetter.objects.get()
    assert str(letter.id) == result.id
    assert (letter.reason, letter.attempt) == (Reason.ATTEMPTS, 3)
    assert letter.exception_class == "builtins.ValueError"
    assert letter.message == "no luck at all"
    assert "in fail" in letter.traceback
    assert len(letter.fingerprint) == 16


def test_every_failed_attempt_keeps_its_own_record(start_worker: StartWorker) -> None:
    start_worker("--processes", "1")
    result = tasks.fail.enqueue("again")
    wait_for(finished(1))
    attempts = Attempt.objects.order_by("number")
    assert [attempt.number for attempt in attempts] == [1, 2, 3]
    assert all("about to fail with again" in attempt.log for attempt in attempts)
    assert all(attempt.finished_at >= attempt.started_at for attempt in attempts)
    result.refresh()
    assert result.status == State.FAILED
    assert [error.message for error in result.errors] == ["again"] * 3
    assert result.attempts == len(result.worker_ids) == 3


def test_a_later_attempt_may_succeed(start_worker: StartWorker) -> None:
    start_worker("--processes", "1")
    result = tasks.succeed_at.enqueue(3)
    assert result.get(timeout=20) == 3
    assert (result.attempts, len(result.errors)) == (3, 2)


def test_an_error_to_give_up_on_is_not_retried(start_worker: StartWorker) -> None:
    start_worker("--processes", "1")
    tasks.give_up.enqueue()
    wait_for(finished(1))
    letter = DeadLetter.objects.get()
    assert (letter.reason, letter.attempt) == (Reason.GAVE_UP, 1)


def test_a_rejected_task_is_not_retried(start_worker: StartWorker) -> None:
    start_worker("--processes", "1")
    tasks.reject.enqueue()
    wait_for(finished(1))
    assert DeadLetter.objects.get().reason == Reason.REJECTED


def test_a_task_may_ask_for_a_retry(start_worker: StartWorker, audit: Path) -> None:
    start_worker("--processes", "1")
    assert tasks.retry_soon.enqueue(str(audit)).get(timeout=20) == "done"
    assert lines(audit) == ["attempt 1", "attempt 2"]


def test_a_snooze_uses_no_attempt(start_worker: StartWorker, audit: Path) -> None:
    start_worker("--processes", "1")
    result = tasks.snooze_until.enqueue(str(audit))
    assert result.get(timeout=20) == 1
    assert lines(audit) == ["attempt 1"] * 4
    assert result.attempts == 1


def test_a_requeued_dead_letter_keeps_its_id(start_worker: StartWorker) -> None:
    start_worker("--processes", "1")
    result = tasks.reject.enqueue()
    wait_for(finished(1))
    before = DeadLetter.objects.get()
    assert requeue([result.id]) == [result.id]
    wait_for(lambda: DeadLetter.objects.filter(finished_at__gt=before.finished_at))
    after = DeadLetter.objects.get()
    assert (after.id, after.attempt) == (before.id, 1)
    assert census() == {"tasks": 0, "results": 0, "dead letters": 1}


def test_system_exit_is_a_failure_and_spares_the_process(
    start_worker: StartWorker, audit: Path
) -> None:
    worker = start_worker("--processes", "1")
    children = worker.children()
    tasks.die.using(max_attempts=1).enqueue(str(audit), "system exit")
    wait_for(finished(1))
    assert DeadLetter.objects.get().exception_class == "builtins.SystemExit"
    assert worker.children() == children


def test_a_result_that_is_no_json_fails_the_task(start_worker: StartWorker) -> None:
    start_worker("--processes", "1")
    tasks.unspeakable.enqueue()
    wait_for(finished(1))
    letter = DeadLetter.objects.get()
    assert "return value" in letter.message
    assert not Result.objects.exists()
