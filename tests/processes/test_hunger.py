"""Tasks that take more memory, processes or descriptors than there are."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from django_jobs.models import Attempt, DeadLetter, Result
from tests.processes import tasks, wrecking
from tests.processes.cgroups import CannotConfine, Cgroup
from tests.processes.conftest import StartWorker
from tests.processes.harness import (
    WorkerProcess,
    census,
    descendants,
    finished,
    is_alive,
    lines,
    wait_for,
)
from tests.processes.proc import parent_of

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.faults,
    pytest.mark.matrix,
]

#: Puts a worker into a group with a limit; False when there can be none.
Confine = Callable[[WorkerProcess, str, int], bool]


@pytest.fixture
def confine(request: pytest.FixtureRequest) -> Iterator[Confine]:
    groups: list[Cgroup] = []

    def into_group(worker: WorkerProcess, controller: str, limit: int) -> bool:
        try:
            groups.append(Cgroup(controller, limit))
        except CannotConfine as error:
            request.node.user_properties.append(("degraded", str(error)))
            return False
        groups[-1].add([worker.pid, *descendants(worker.pid)])
        return True

    yield into_group
    for group in groups:
        group.remove()


def test_a_task_that_the_kernel_kills_for_its_memory_has_crashed(
    start_worker: StartWorker, confine: Confine
) -> None:
    worker = start_worker("--processes", "2")
    worker.children(2)
    is_confined = confine(worker, "memory", 400 << 20)
    neighbour = tasks.sleep.enqueue(1)
    result = wrecking.grow_until_killed.enqueue(2000 if is_confined else 0)
    assert result.get(timeout=30) == "survived"
    (attempt,) = Attempt.objects.all()
    assert attempt.verdict == "crashed"
    assert "SIGKILL (possibly out of memory)" in attempt.message
    assert neighbour.get(timeout=20) == "slept"
    assert tasks.add.enqueue(1, 1).get(timeout=20) == 2
    assert worker.process.poll() is None


def test_a_task_without_memory_fails_and_the_next_one_has_enough(
    start_worker: StartWorker,
) -> None:
    worker = start_worker("--processes", "1")
    limits = wrecking.tell_limits.enqueue().get(timeout=20)
    wrecking.grow_beyond_a_limit.enqueue(64)
    wrecking.leak_descriptors.enqueue()
    # Both at once: the second one is sent to the child that is to be replaced.
    told = [wrecking.tell_limits.enqueue() for _ in range(3)]
    assert [each.get(timeout=20) for each in told] == [limits] * 3
    wait_for(finished(6))
    classes = set(DeadLetter.objects.values_list("exception_class", flat=True))
    assert classes == {"builtins.MemoryError", "builtins.OSError"}
    assert not Attempt.objects.filter(verdict="crashed").exists()
    assert worker.output().count("was short of memory") == 2


@pytest.mark.parametrize("leaves", [False, True], ids=["in the group", "out of it"])
def test_a_fork_bomb_is_gone_two_seconds_after_its_limit(
    start_worker: StartWorker, confine: Confine, audit: Path, leaves: bool
) -> None:
    worker = start_worker("--processes", "2")
    worker.children(2)
    # Without a group the number of forks is bounded by the bomb itself.
    is_confined = confine(worker, "pids", 150)
    generations, pause = (12, 0.02) if is_confined else (6, 60)
    neighbour = tasks.sleep.enqueue(4)
    bomb = wrecking.fork_bomb.using(time_limit=2)
    task_id = bomb.enqueue(str(audit), generations, leaves, pause).id
    wait_for(lambda: DeadLetter.objects.filter(pk=task_id).exists(), 30)
    begin = time.monotonic()
    pids = [int(line) for line in lines(audit)]
    assert len(pids) >= 30
    wait_for(lambda: not any(map(is_alive, pids)))
    assert time.monotonic() - begin < 2
    assert "time limit" in DeadLetter.objects.get().message
    assert neighbour.get(timeout=20) == "slept"
    assert tasks.add.enqueue(1, 1).get(timeout=20) == 2
    assert set(Result.objects.values_list("attempt", flat=True)) == {1}
    assert census() == {"tasks": 0, "results": 2, "dead letters": 1}


def test_without_processes_the_worker_waits_and_says_so_once(
    start_worker: StartWorker, request: pytest.FixtureRequest
) -> None:
    worker = start_worker("--processes", "2")
    first, second = worker.children(2)
    try:
        group = Cgroup("pids", 1000)
    except CannotConfine as error:
        request.node.user_properties.append(("degraded", str(error)))
        pytest.skip("the superuser has no other limit of processes")
    try:
        group.add([worker.pid, *descendants(worker.pid)])
        group.limit(1)
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: "event=child_not_started" in worker.output())
        # More often than a worker tries that has not had any child.
        result = tasks.sleep.enqueue(12)
        assert result.get(timeout=40) == "slept"
        assert worker.output().count("event=child_not_started") == 1
        assert worker.children() == [second]
        group.limit(1000)
        worker.children(2)
        assert worker.output().count("event=children_started") == 1
        assert worker.stop() == 0
    finally:
        group.remove()


def test_a_fork_server_that_cannot_fork_is_replaced(
    start_worker: StartWorker, request: pytest.FixtureRequest
) -> None:
    worker = start_worker("--processes", "1")
    (child,) = worker.children()
    server = parent_of(child)
    try:
        group = Cgroup("pids", 1)
    except CannotConfine as error:
        request.node.user_properties.append(("degraded", str(error)))
        pytest.skip("the superuser has no other limit of processes")
    try:
        group.add([server])
        os.kill(child, signal.SIGKILL)
        assert tasks.add.enqueue(1, 1).get(timeout=20) == 2
        assert not is_alive(server)
        assert worker.output().count("event=child_not_started") == 1
        assert worker.stop() == 0
    finally:
        group.remove()
