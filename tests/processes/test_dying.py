"""Processes that die: children, parents, whole groups. Nothing is lost."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from pathlib import Path

import pytest

from django_jobs import enqueue_many
from django_jobs.models import Attempt, DeadLetter, Result, Task, Worker
from django_jobs.states import Reason, State
from tests.processes import tasks, wrecking
from tests.processes.conftest import StartWorker
from tests.processes.harness import (
    census,
    descendants,
    finished,
    is_alive,
    lines,
    wait_for,
)

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize(
    ("how", "words"),
    [("kill", "SIGKILL"), ("segfault", "SIGSEGV"), ("exit", "status 0")],
)
def test_a_task_whose_process_died_runs_again(
    start_worker: StartWorker, audit: Path, how: str, words: str
) -> None:
    start_worker("--processes", "1")
    result = tasks.die.enqueue(str(audit), how)
    assert result.get(timeout=20) == "survived"
    assert lines(audit) == ["attempt 1", "attempt 2"]
    assert words in Attempt.objects.get().message


def test_a_segfault_leaves_the_stack_of_the_task_and_no_core(
    start_worker: StartWorker, audit: Path
) -> None:
    worker = start_worker("--processes", "1")
    assert tasks.core_limit.enqueue().get(timeout=20) == 0
    assert tasks.die.enqueue(str(audit), "segfault").get(timeout=20) == "survived"
    stack = Attempt.objects.get().traceback
    assert stack.startswith("Fatal Python error: Segmentation fault")
    assert "in die" in stack
    assert "in die" in worker.output()


def test_a_task_that_always_kills_its_process_becomes_a_dead_letter(
    start_worker: StartWorker, audit: Path
) -> None:
    start_worker("--processes", "1")
    tasks.die.using(max_attempts=1).enqueue(str(audit), "kill", times=99)
    wait_for(finished(1), 30)
    letter = DeadLetter.objects.get()
    assert (letter.reason, letter.crashes) == (Reason.CRASHES, 3)
    assert lines(audit) == ["attempt 1", "attempt 2", "attempt 3"]
    assert Attempt.objects.count() == 3


@pytest.mark.parametrize("threads", ["1", "2"])
@pytest.mark.parametrize("name", ["sleep", "async_sleep"])
@pytest.mark.parametrize("point", ["child.received", "child.before_send"])
def test_a_process_that_cannot_take_or_report_a_task_ends(
    start_worker: StartWorker, tmp_path: Path, point: str, name: str, threads: str
) -> None:
    rule = f"{point}=raise,once={tmp_path}/marker"
    worker = start_worker(
        *("--processes", "1", "--threads", threads), DJANGO_JOBS_FAILPOINTS=rule
    )
    result = getattr(tasks, name).enqueue(0)
    assert result.get(timeout=20) == "slept"
    assert Attempt.objects.get().verdict == "crashed"
    assert worker.output().count(" CRITICAL event=") == 1


def test_neighbours_of_a_dead_process_finish_with_their_first_attempt(
    start_worker: StartWorker, audit: Path
) -> None:
    start_worker("--processes", "2")
    for result in enqueue_many([tasks.sleep.s(0) for _ in range(200)]):
        result.get(timeout=20)
    deadly = tasks.die.enqueue(str(audit), "kill")
    others = enqueue_many([tasks.sleep.s(0) for _ in range(500)])
    deadly.get(timeout=20)
    wait_for(finished(701))
    ids = [result.id for result in others]
    attempts = Result.objects.filter(id__in=ids).values_list("attempt", flat=True)
    assert set(attempts) == {1}


def test_an_idle_child_that_is_killed_is_replaced(start_worker: StartWorker) -> None:
    worker = start_worker("--processes", "2")
    children = worker.children(2)
    os.kill(children[0], signal.SIGKILL)
    wait_for(lambda: not is_alive(children[0]))
    results = enqueue_many([tasks.which_thread.s(0.01) for _ in range(20)])
    for result in results:
        result.get(timeout=20)
    assert len(worker.children(2)) == 2


def test_children_die_with_their_parent_within_a_second(
    start_worker: StartWorker, audit: Path
) -> None:
    worker = start_worker("--processes", "2")
    tasks.stubborn.enqueue(str(audit))
    wait_for(lambda: lines(audit))
    children = worker.children()
    assert children
    os.kill(worker.pid, signal.SIGKILL)
    worker.process.wait(5)
    begin = time.monotonic()
    wait_for(lambda: not any(is_alive(pid) for pid in children))
    assert time.monotonic() - begin < 1


def test_a_child_that_hears_nothing_dies_with_its_parent_too(
    start_worker: StartWorker, audit: Path
) -> None:
    worker = start_worker("--processes", "1")
    wrecking.hold_the_interpreter.enqueue(str(audit))
    pids = [int(pid) for pid in wait_for(lambda: lines(audit))[0].split()]
    family = [*descendants(worker.pid), *pids]
    wait_for(lambda: not _hears(pids[0]))
    os.kill(worker.pid, signal.SIGKILL)
    worker.process.wait(5)
    begin = time.monotonic()
    wait_for(lambda: not any(is_alive(pid) for pid in family))
    assert time.monotonic() - begin < 1


def _hears(pid: int) -> bool:
    """Tell whether a child's other threads run: that one uses no processor now."""
    before = _processor_time(pid)
    time.sleep(0.1)
    return _processor_time(pid) - before < 3


def _processor_time(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11])


def test_the_tasks_of_a_killed_worker_are_run_by_another(
    start_worker: StartWorker, audit: Path
) -> None:
    first = start_worker("--processes", "2")
    result = tasks.sleep.enqueue(3, str(audit), "task")
    wait_for(lambda: lines(audit))
    first.kill_everything()
    begin = time.monotonic()
    start_worker("--processes", "1")
    wait_for(lambda: lines(audit).count("start task") == 2)
    # The same host sees that the process is gone: no need to wait for the lease.
    assert time.monotonic() - begin < 10
    result.get(timeout=20)
    assert Attempt.objects.get().verdict == "crashed"
    assert Worker.objects.count() == 1


def test_a_killed_worker_leaves_nothing_behind(start_worker: StartWorker) -> None:
    # Not tmp_path: the path of a socket may have 107 characters only.
    with tempfile.TemporaryDirectory() as folder:
        worker = start_worker("--processes", "1", TMPDIR=folder)
        worker.children()
        family = descendants(worker.pid)
        assert os.listdir(folder)
        worker.send(signal.SIGKILL)
        wait_for(lambda: not any(is_alive(pid) for pid in family))
        assert os.listdir(folder) == []


def test_the_lease_of_a_dead_worker_on_another_host_runs_out(
    start_worker: StartWorker, audit: Path
) -> None:
    first = start_worker("--processes", "1", JOBS_LEASE="6", JOBS_HEARTBEAT="0.5")
    result = tasks.sleep.enqueue(2, str(audit), "task")
    wait_for(lambda: lines(audit))
    first.kill_everything()
    Worker.objects.update(boot="another host")
    start_worker("--processes", "1")
    result.get(timeout=30)
    assert lines(audit).count("start task") == 2


def test_a_worker_that_was_stopped_beyond_its_lease_completes_nothing(
    start_worker: StartWorker, audit: Path
) -> None:
    first = start_worker("--processes", "1", JOBS_LEASE="6", JOBS_HEARTBEAT="0.5")
    result = tasks.sleep.enqueue(1, str(audit), "task")
    wait_for(lambda: lines(audit))
    first.send(signal.SIGSTOP)
    Worker.objects.update(boot="another host")
    second = start_worker("--processes", "1")
    result.get(timeout=30)
    first.send(signal.SIGCONT)
    paused = 'event=lease_lost reason="this worker was paused" seconds='
    wait_for(lambda: paused in first.output())
    assert tasks.add.enqueue(1, 1).get(timeout=20) == 2
    assert census() == {"tasks": 0, "results": 2, "dead letters": 0}
    assert second.stop() == 0
    # It goes on under another identity.
    assert tasks.add.enqueue(1, 2).get(timeout=20) == 3


def test_a_worker_whose_row_is_gone_starts_anew(
    start_worker: StartWorker, audit: Path
) -> None:
    worker = start_worker("--processes", "1", JOBS_LEASE="6", JOBS_HEARTBEAT="0.5")
    Worker.objects.all().delete()
    wait_for(lambda: "event=lease_lost" in worker.output())
    assert tasks.add.enqueue(1, 1).get(timeout=20) == 2
    assert Worker.objects.count() == 1


def test_tasks_are_in_one_place_while_workers_are_killed(
    start_worker: StartWorker, audit: Path
) -> None:
    enqueue_many([tasks.sleep.s(0.002) for _ in range(1500)])
    for _ in range(2):
        worker = start_worker("--processes", "2")
        wait_for(lambda: Result.objects.count() > 50)
        worker.kill_everything()
    assert sum(census().values()) == 1500
    start_worker("--processes", "2")
    wait_for(lambda: sum(census().values()) == 1500 and not Task.objects.exists(), 60)
    assert Result.objects.filter(state=State.SUCCESSFUL).count() == 1500
