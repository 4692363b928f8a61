"""Tasks that do what no task should: only they pay for it."""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from django_jobs import enqueue_many
from django_jobs.models import Attempt, DeadLetter, Queue, Result
from django_jobs.states import Reason, State
from django_jobs.worker.processes import pid_start
from tests.processes import tasks
from tests.processes.conftest import StartWorker
from tests.processes.harness import census, finished, is_alive, lines, wait_for
from tests.processes.proc import parent_of

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize("how", tasks.BEGINNINGS)
def test_a_transaction_left_open_fails_its_task_and_spares_the_next(
    start_worker: StartWorker, how: str
) -> None:
    start_worker("--processes", "1")
    tasks.leave_transaction_open.using(max_attempts=1).enqueue(how)
    tasks.create_queue.enqueue("committed").get(timeout=20)
    wait_for(finished(2))
    assert list(Queue.objects.values_list("name", flat=True)) == ["committed"]
    assert "left a transaction open" in DeadLetter.objects.get().message


@pytest.mark.parametrize("how", tasks.BEGINNINGS)
@pytest.mark.parametrize("others", [0, 1])
def test_a_transaction_that_a_coroutine_left_open_spares_the_next(
    start_worker: StartWorker, audit: Path, others: int, how: str
) -> None:
    worker = start_worker("--processes", "1")
    for _ in range(others):
        tasks.async_sleep.enqueue(60, str(audit))
        wait_for(lambda: lines(audit))
    left = tasks.async_leave_transaction_open.using(max_attempts=1).enqueue(how)
    wait_for(DeadLetter.objects.exists)
    tasks.async_create_queue.enqueue("committed").get(timeout=20)
    assert list(Queue.objects.values_list("name", flat=True)) == ["committed"]
    letter = DeadLetter.objects.get()
    assert str(letter.pk) == left.id
    assert "left a transaction open on default" in letter.message
    assert worker.output().count("event=transaction_left_open") == 1


def test_a_transaction_opened_after_the_end_of_its_task_swallows_nothing(
    start_worker: StartWorker, audit: Path
) -> None:
    start_worker("--processes", "1")
    tasks.async_create_queue.enqueue("committed").get(timeout=20)
    # Both now: with one writer nobody else can enqueue once the transaction is open.
    results = [tasks.open_transaction_later.enqueue(str(audit))]
    results.append(tasks.create_queue_after.enqueue(str(audit), "committed too"))
    for each in results:
        each.get(timeout=20)
    names = Queue.objects.order_by("name").values_list("name", flat=True)
    assert list(names) == ["committed", "committed too"]
    assert "left a transaction open" in Attempt.objects.get().message


def test_who_wrote_in_a_transaction_that_another_left_open_writes_again(
    start_worker: StartWorker, audit: Path
) -> None:
    start_worker("--processes", "1")
    # This one first: with one writer nobody else can enqueue while it is open.
    writes = tasks.write_while_open.enqueue(str(audit), "kept")
    tasks.leave_open_what_another_uses.using(max_attempts=1).enqueue(str(audit))
    wait_for(DeadLetter.objects.exists)
    tasks.audit(str(audit), "go on")
    writes.get(timeout=20)
    assert Queue.objects.get().name == "kept"
    (attempt,) = Attempt.objects.filter(task_id=writes.id)
    assert "another task had left open" in attempt.message


def test_a_transaction_of_a_running_coroutine_is_left_to_it(
    start_worker: StartWorker, audit: Path
) -> None:
    worker = start_worker("--processes", "1")
    # First, as nobody else writes meanwhile on a database with one writer.
    results = [tasks.end_while_held.enqueue(str(audit)) for _ in range(2)]
    results.append(tasks.hold_transaction.enqueue(str(audit), "kept"))
    for result in results:
        result.get(timeout=20)
    assert Queue.objects.get().name == "kept"
    assert "event=transaction_left_open" not in worker.output()


@pytest.mark.parametrize("how", ["retry", "text"])
def test_an_error_that_cannot_be_looked_at_costs_only_its_task(
    start_worker: StartWorker, how: str
) -> None:
    worker = start_worker("--processes", "1", "--threads", "2")
    children = worker.children()
    for _ in range(4):
        tasks.raise_oddly.enqueue(how)
    wait_for(finished(4))
    assert tasks.add.enqueue(1, 1).get(timeout=20) == 2
    assert DeadLetter.objects.count() == 4
    assert worker.children() == children


def test_a_callback_that_fails_after_the_commit_changes_nothing(
    start_worker: StartWorker, audit: Path
) -> None:
    worker = start_worker("--processes", "1")
    assert tasks.fail_after_commit.enqueue(str(audit)).get(timeout=20) == "done"
    wait_for(lambda: "event=callback_failed" in worker.output())
    assert tasks.add.enqueue(1, 1).get(timeout=20) == 2
    assert lines(audit) == ["run"]
    assert not Attempt.objects.exists()


def test_a_task_may_use_multiprocessing(start_worker: StartWorker) -> None:
    start_worker("--processes", "1")
    # Often: that a pool ends its processes in time is a matter of luck without SIGTERM.
    assert tasks.use_processes.enqueue(20).get(timeout=60) == 120


def test_a_forked_copy_of_a_task_does_not_go_on_as_the_worker(
    start_worker: StartWorker, audit: Path
) -> None:
    start_worker("--processes", "1")
    result = tasks.fork_and_return.enqueue(str(audit))
    assert result.get(timeout=20) == "original"
    wait_for(lambda: len(lines(audit)) == 2)
    copy = next(int(pid) for who, pid in map(str.split, lines(audit)) if who == "copy")
    wait_for(lambda: not pid_start(copy))
    assert tasks.add.enqueue(1, 1).get(timeout=20) == 2


def _copies(audit: Path) -> list[int]:
    told = [line.partition(" copy ") for line in lines(audit)]
    return [int(pid) for forked, _, pid in told if forked == "forked" and pid]


WHERE = ["coroutine", "awaiting", "part", "thread", "database thread"]


@pytest.mark.parametrize("where", WHERE)
def test_a_copy_forked_by_a_coroutine_runs_nothing_of_the_others(
    start_worker: StartWorker, audit: Path, where: str
) -> None:
    worker = start_worker("--processes", "1")
    children = worker.children()
    ticking = [tasks.tick.enqueue(str(audit)) for _ in range(3)]
    wait_for(lambda: lines(audit).count("ticks") == 3)
    result = tasks.async_fork.enqueue(str(audit), where)
    assert result.get(timeout=20) == "original"
    for each in ticking:
        each.get(timeout=20)
    wait_for(lambda: _copies(audit))
    (copy,) = _copies(audit)
    wait_for(lambda: not is_alive(copy))
    assert "ticked in a copy" not in lines(audit)
    assert "copy went on" not in lines(audit) or where == "coroutine"
    assert "event=outcome_of_nothing" not in worker.output()
    assert worker.children() == children


def test_a_coroutine_that_blocks_the_loop_does_not_block_sync_tasks(
    start_worker: StartWorker, audit: Path
) -> None:
    start_worker("--processes", "1")
    tasks.async_sleep.enqueue(0).get(timeout=20)
    tasks.block_the_loop.enqueue(8, str(audit))
    wait_for(lambda: lines(audit))
    begin = time.monotonic()
    enqueue_many([tasks.async_sleep.s(0) for _ in range(5)])
    assert tasks.add.enqueue(1, 1).get(timeout=20) == 2
    assert time.monotonic() - begin < 6


def test_a_task_that_changes_the_alarm_does_not_disarm_the_next_one(
    start_worker: StartWorker, audit: Path
) -> None:
    worker = start_worker("--processes", "1")
    children = worker.children()
    tasks.reset_alarm.enqueue().get(timeout=20)
    tasks.tidy_up.enqueue(str(audit))
    wait_for(finished(2))
    assert lines(audit) == ["tidied up"]
    assert worker.children() == children


def _kill_fork_server(child: int) -> None:
    os.kill(parent_of(child), signal.SIGKILL)


def _break_fork_server(child: int) -> None:
    """Leave it no descriptor for the next child: it ends by an error."""
    resource.prlimit(parent_of(child), resource.RLIMIT_NOFILE, (9, 9))
    os.kill(child, signal.SIGKILL)


@pytest.mark.parametrize("end", [_kill_fork_server, _break_fork_server])
def test_the_end_of_the_fork_server_stops_nothing(
    start_worker: StartWorker, end: Callable[[int], None]
) -> None:
    worker = start_worker("--processes", "2")
    for _ in range(3):
        children = worker.children(2)
        end(children[0])
        wait_for(lambda gone=children: not set(gone) & set(worker.children(2)))
        assert tasks.add.enqueue(1, 1).get(timeout=20) == 2
    assert worker.stop() == 0
    assert census() == {"tasks": 0, "results": 3, "dead letters": 0}


def test_a_running_task_is_revoked_within_a_second(
    start_worker: StartWorker, audit: Path
) -> None:
    start_worker("--processes", "1")
    tasks.noop.enqueue().get(timeout=20)
    result = tasks.interruptible.enqueue(str(audit))
    wait_for(lambda: lines(audit))
    begin = time.monotonic()
    result.revoke()
    wait_for(lambda: "interrupted" in lines(audit))
    assert time.monotonic() - begin < 1.5


def test_a_hangup_is_a_graceful_stop(start_worker: StartWorker, audit: Path) -> None:
    worker = start_worker("--processes", "1")
    tasks.sleep.enqueue(1, str(audit), "task")
    wait_for(lambda: lines(audit))
    worker.send(signal.SIGHUP)
    assert worker.wait() == 0
    assert Result.objects.get().state == State.SUCCESSFUL


def test_a_queue_is_not_taken_for_one_that_differs_by_case(
    start_worker: StartWorker,
) -> None:
    for queue in ("mail", "Mail", "m\xe1il"):
        tasks.noop.using(queue_name=queue).enqueue()
    start_worker("--queues", "mail", "--burst", ready=False).wait()
    assert Result.objects.get().queue_name == "mail"


def test_a_long_atomic_task_outlives_the_lease(
    start_worker: StartWorker, audit: Path, requires: Callable[..., None]
) -> None:
    # Only there it keeps the worker from renewing its lease.
    requires("sqlite")
    start_worker("--processes", "1", JOBS_LEASE="2", JOBS_HEARTBEAT="0.4")
    result = tasks.note_atomically.enqueue(str(audit), "long", "sleep")
    assert result.get(timeout=20) == "long"
    assert lines(audit) == ["attempt 1", "sleeps"]
    assert Reason.CRASHES not in DeadLetter.objects.values_list("reason", flat=True)
