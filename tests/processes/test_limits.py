"""Limits of time, revocation, and what happens to the neighbours."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from django_jobs import enqueue_many
from django_jobs.control import revoke
from django_jobs.models import Attempt, DeadLetter, Queue, Result, Task
from django_jobs.states import State
from tests.processes import tasks
from tests.processes.conftest import StartWorker
from tests.processes.harness import census, finished, is_alive, lines, wait_for

pytestmark = pytest.mark.django_db(transaction=True)


def test_the_hard_limit_kills_the_process_group_within_a_second(
    start_worker: StartWorker, audit: Path
) -> None:
    start_worker("--processes", "1")
    tasks.overrun.enqueue(str(audit))
    wait_for(lambda: lines(audit))
    begin = time.monotonic()
    pids = [int(word) for word in lines(audit)[0].split()]
    wait_for(lambda: not any(is_alive(pid) for pid in pids))
    assert time.monotonic() - begin < 0.5 + 1
    wait_for(finished(1))
    letter = DeadLetter.objects.get()
    assert letter.exception_class.endswith("TimeLimitExceeded")
    assert "0.5 s" in letter.message


def test_after_a_hard_limit_the_next_task_runs(
    start_worker: StartWorker, audit: Path
) -> None:
    start_worker("--processes", "1")
    tasks.overrun.enqueue(str(audit))
    assert tasks.add.enqueue(1, 1).get(timeout=20) == 2


def test_the_limit_of_a_call_beats_that_of_the_task(
    start_worker: StartWorker, audit: Path
) -> None:
    worker = start_worker("--processes", "1")
    task = tasks.sleep.using(time_limit=0.3, max_attempts=1).enqueue(30)
    wait_for(finished(1))
    assert "0.3 s" in DeadLetter.objects.get().message
    line = (
        rf"ERROR +event=task_finished task=\S+ id={task.id} attempt=1 verdict=failed "
    )
    assert len(re.findall(line, worker.output())) == 1


@pytest.mark.parametrize("task", [tasks.tidy_up, tasks.async_tidy_up])
def test_the_soft_limit_lets_the_task_tidy_up(
    start_worker: StartWorker, audit: Path, task
) -> None:
    worker = start_worker("--processes", "1")
    children = worker.children()
    task.enqueue(str(audit))
    wait_for(finished(1))
    assert lines(audit) == ["tidied up"]
    assert DeadLetter.objects.get().exception_class.endswith("SoftTimeLimitExceeded")
    assert worker.children() == children


def test_the_soft_limit_works_in_threads(
    start_worker: StartWorker, audit: Path
) -> None:
    start_worker("--processes", "1", "--threads", "2")
    tasks.spin_softly.enqueue(str(audit))
    wait_for(finished(1))
    assert lines(audit) == ["tidied up"]
    assert DeadLetter.objects.get().exception_class.endswith("SoftTimeLimitExceeded")


def test_a_revoked_waiting_task_never_starts_also_without_workers(
    start_worker: StartWorker, audit: Path
) -> None:
    results = [
        tasks.write.enqueue(str(audit), "ready"),
        tasks.write.using(run_after=0.3).enqueue(str(audit), "scheduled"),
    ]
    assert set(revoke([result.id for result in results]).values()) == {"revoked"}
    start_worker("--burst", ready=False).wait()
    assert lines(audit) == []
    for result in results:
        result.refresh()
        assert result.status == State.REVOKED


@pytest.mark.parametrize("task", [tasks.interruptible, tasks.async_interruptible])
def test_a_revoked_running_task_is_interrupted(
    start_worker: StartWorker, audit: Path, task
) -> None:
    worker = start_worker("--processes", "1")
    children = worker.children()
    result = task.enqueue(str(audit))
    wait_for(lambda: lines(audit))
    assert result.revoke()
    wait_for(lambda: census()["results"])
    assert lines(audit) == ["start", "interrupted"]
    result.refresh()
    assert result.status == State.REVOKED
    assert worker.children() == children
    line = rf"WARNING +event=task_finished .*id={result.id} .*verdict=revoked \S+$"
    assert len(re.findall(line, worker.output(), re.MULTILINE)) == 1
    worker.stop()
    assert "finished=1 returned=0" in worker.output()


def test_a_task_that_ignores_its_interruption_is_killed(
    start_worker: StartWorker, audit: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start_worker("--processes", "1", JOBS_INTERRUPT_GRACE="0.5")
    result = tasks.stubborn.enqueue(str(audit))
    pid = int(wait_for(lambda: lines(audit))[0].split()[1])
    result.revoke()
    wait_for(lambda: not is_alive(pid))
    wait_for(finished(1))
    result.refresh()
    assert result.status == State.REVOKED


def test_revoking_a_finished_task_changes_nothing(start_worker: StartWorker) -> None:
    start_worker("--processes", "1")
    result = tasks.add.enqueue(1, 2)
    result.get(timeout=20)
    assert result.revoke() is False
    assert result.status == State.SUCCESSFUL


def test_neighbours_of_a_killed_task_run_again_without_losing_an_attempt(
    start_worker: StartWorker, audit: Path
) -> None:
    start_worker("--processes", "1", "--threads", "2")
    neighbour = tasks.sleep.enqueue(5, str(audit), "neighbour")
    wait_for(lambda: lines(audit))
    tasks.sleep.using(time_limit=0.3, max_attempts=1).enqueue(30)
    neighbour.get(timeout=20)
    assert neighbour.attempts == 1
    assert lines(audit).count("start neighbour") == 2
    assert DeadLetter.objects.count() == 1


def test_an_atomic_task_commits_its_writes_with_its_completion(
    start_worker: StartWorker, audit: Path
) -> None:
    start_worker("--processes", "1")
    results = [
        tasks.note_atomically.enqueue(str(audit), name, how)
        for name, how in [("kept", "ok"), ("killed", "kill once"), ("undone", "raise")]
    ]
    wait_for(finished(3))
    written = set(Queue.objects.values_list("name", flat=True))
    assert written == {"kept-1", "killed-2"}
    assert results[0].get(timeout=1) == "kept"
    assert DeadLetter.objects.get().message == "rolled back"


def test_an_atomic_task_whose_lease_is_over_leaves_no_trace(
    start_worker: StartWorker, audit: Path, requires: Callable[..., None]
) -> None:
    # On SQLite nobody can take the task meanwhile: no other writes in that time.
    requires("postgresql", "mysql")
    start_worker("--processes", "1")
    tasks.note_atomically.enqueue(str(audit), "stale", "sleep")
    wait_for(lambda: "sleeps" in lines(audit))
    # As if another worker had rescued and claimed it.
    Task.objects.update(lease=7)
    enqueue_many([tasks.noop.s()])
    wait_for(lambda: Result.objects.count() == 1)
    assert not Queue.objects.exists()
    assert not Attempt.objects.exists()
    assert Task.objects.get().lease == 7


def test_a_revoked_task_may_look_whether_it_shall_stop(
    start_worker: StartWorker, audit: Path
) -> None:
    start_worker("--processes", "1", JOBS_INTERRUPT_GRACE="15")
    result = tasks.stop_when_asked.enqueue(str(audit))
    wait_for(lambda: lines(audit))
    result.revoke()
    wait_for(finished(1))
    assert lines(audit) == ["start", "stopped"]
