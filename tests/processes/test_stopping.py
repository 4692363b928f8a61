"""The graceful stop: what was not started goes back, what runs may finish."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from django_jobs import enqueue_many
from django_jobs.models import Attempt, Result, Task, Worker
from django_jobs.states import State
from tests.processes import tasks
from tests.processes.conftest import StartWorker
from tests.processes.harness import census, descendants, is_alive, lines, wait_for

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_worker_stops_at_once_with_0(
    start_worker: StartWorker, number: signal.Signals
) -> None:
    worker = start_worker("--processes", "2")
    below = descendants(worker.pid)
    begin = time.monotonic()
    worker.send(number)
    assert worker.wait() == 0
    assert time.monotonic() - begin < 3
    assert not Worker.objects.exists()
    # What the system's first process has not reaped yet lives no more.
    wait_for(lambda: not any(is_alive(pid) for pid in below))


def test_a_running_task_may_finish(start_worker: StartWorker, audit: Path) -> None:
    worker = start_worker("--processes", "1")
    tasks.sleep.enqueue(1, str(audit), "task")
    wait_for(lambda: lines(audit))
    assert worker.stop() == 0
    assert lines(audit) == ["start task", "end task"]
    assert Result.objects.get().state == State.SUCCESSFUL


def test_what_was_not_started_goes_back_untouched(
    start_worker: StartWorker, audit: Path
) -> None:
    worker = start_worker("--processes", "1")
    for result in enqueue_many([tasks.sleep.s(0) for _ in range(100)]):
        result.get(timeout=20)
    enqueue_many([tasks.sleep.s(0.2, str(audit), "task") for _ in range(40)])
    wait_for(lambda: lines(audit))
    assert worker.stop() == 0
    started = lines(audit).count("start task")
    assert Result.objects.count() == 100 + started
    waiting = Task.objects.values_list("state", "attempt", "worker_id")
    assert set(waiting) == {(State.READY, 0, None)}
    assert len(waiting) == 40 - started


def test_a_task_that_takes_too_long_is_interrupted_and_loses_no_attempt(
    start_worker: StartWorker, audit: Path
) -> None:
    worker = start_worker("--processes", "1", "--shutdown-timeout", "0.5")
    tasks.interruptible.enqueue(str(audit))
    wait_for(lambda: lines(audit))
    assert worker.stop() == 0
    assert lines(audit) == ["start", "interrupted"]
    task = Task.objects.get()
    assert (task.state, task.attempt) == (State.READY, 0)
    assert Attempt.objects.get().verdict == "interrupted"


def test_a_task_that_does_not_leave_is_killed_and_loses_no_attempt(
    start_worker: StartWorker, audit: Path
) -> None:
    worker = start_worker("--processes", "1", "--shutdown-timeout", "0.2")
    tasks.stubborn.enqueue(str(audit))
    wait_for(lambda: lines(audit))
    assert worker.stop() == 0
    task = Task.objects.get()
    assert (task.state, task.attempt, task.crashes) == (State.READY, 0, 0)
    assert worker.output().count("event=task_finished ") == 1
    assert f"id={task.pk} attempt=1 verdict=interrupted" in worker.output()
    assert "finished=0 returned=1" in worker.output()


def test_a_second_signal_skips_ahead(start_worker: StartWorker, audit: Path) -> None:
    worker = start_worker("--processes", "1", "--shutdown-timeout", "60")
    tasks.interruptible.enqueue(str(audit))
    wait_for(lambda: lines(audit))
    worker.send(signal.SIGTERM)
    wait_for(lambda: "event=stopping" in worker.output())
    worker.send(signal.SIGTERM)
    begin = time.monotonic()
    assert worker.wait() == 0
    assert time.monotonic() - begin < 5
    assert lines(audit) == ["start", "interrupted"]


@pytest.mark.parametrize("send", [os.kill, os.killpg])
@pytest.mark.parametrize("before", [None, signal.SIGTERM])
def test_sigquit_waits_for_nothing_and_costs_no_attempt(
    start_worker: StartWorker,
    audit: Path,
    send: Callable[[int, int], None],
    before: signal.Signals | None,
) -> None:
    worker = start_worker("--processes", "1", "--shutdown-timeout", "60")
    for result in enqueue_many([tasks.sleep.s(0) for _ in range(100)]):
        result.get(timeout=20)
    enqueue_many([tasks.interruptible.s(str(audit)), *([tasks.sleep.s(0)] * 20)])
    wait_for(lambda: lines(audit))
    if before:
        worker.send(before)
        wait_for(lambda: "event=stopping" in worker.output())
    begin = time.monotonic()
    send(worker.pid, signal.SIGQUIT)
    assert worker.wait() == 0
    assert time.monotonic() - begin < 3
    assert "event=killing reason=SIGQUIT" in worker.output()
    assert lines(audit) == ["start"]  # it had no time to tidy up
    waiting = Task.objects.values_list("state", "attempt", "crashes", "worker_id")
    assert set(waiting) == {(State.READY, 0, 0, None)}
    assert (len(waiting), Worker.objects.count()) == (21, 0)


def test_nothing_is_lost_when_workers_come_and_go(
    start_worker: StartWorker, audit: Path
) -> None:
    enqueue_many([tasks.sleep.s(0.001) for _ in range(1000)])
    for _ in range(3):
        worker = start_worker("--processes", "2")
        assert worker.stop() == 0
        assert sum(census().values()) == 1000
    start_worker("--processes", "2", "--burst", ready=False).wait()
    assert census() == {"tasks": 0, "results": 1000, "dead letters": 0}
    assert set(Result.objects.values_list("attempt", flat=True)) == {1}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_to_the_whole_group_lets_running_tasks_finish(
    start_worker: StartWorker, audit: Path, number: int
) -> None:
    worker = start_worker("--processes", "1")
    tasks.sleep.enqueue(1, str(audit), "task")
    wait_for(lambda: lines(audit))
    os.killpg(worker.pid, number)
    assert worker.wait() == 0
    assert lines(audit) == ["start task", "end task"]
    assert Result.objects.get().attempt == 1
