"""How soon work goes on after a fault, and that a worker knows when it must not."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.db import connection

from django_jobs import enqueue_many
from django_jobs.models import Attempt, Queue, Result, Task, Worker
from tests.processes import tasks
from tests.processes.conftest import Figure, StartWorker
from tests.processes.harness import (
    census,
    elsewhere,
    is_alive,
    lines,
    says,
    seconds_until,
    wait_for,
)
from tests.processes.proxy import Proxy

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.faults,
    pytest.mark.matrix(whole="postgresql"),
]

Env = dict[str, str]

#: A short lease, so that these tests need not wait long for its end.
SHORT = {"JOBS_LEASE": "6", "JOBS_HEARTBEAT": "1"}


@pytest.fixture
def proxy(requires: Callable[..., None]) -> Iterator[Proxy]:
    requires("postgresql", "mysql")
    server = connection.settings_dict
    standard = 5432 if connection.vendor == "postgresql" else 3306
    with Proxy(server["HOST"], int(server["PORT"] or standard)) as made:
        yield made


def through(proxy: Proxy) -> Env:
    """Return the environment of a worker that reaches its database by a proxy."""
    server = connection.settings_dict
    scheme = "postgres" if connection.vendor == "postgresql" else "mysql"
    who = f"{server['USER']}:{server['PASSWORD']}"
    url = f"{scheme}://{who}@127.0.0.1:{proxy.port}/"
    return {f"DJANGO_JOBS_TEST_{settings.SERVER.upper()}_URL": url}


def starts(audit: Path, line: str) -> int:
    return lines(audit).count(f"start {line}")


# -- processes that die --------------------------------------------------------------


def test_the_task_of_a_child_that_died_is_back_at_once(
    start_worker: StartWorker, audit: Path, figure: Figure
) -> None:
    worker = start_worker("--processes", "2")
    tasks.stubborn.enqueue(str(audit))
    [line] = wait_for(lambda: lines(audit))
    os.kill(int(line.split()[1]), signal.SIGKILL)
    back = seconds_until(lambda: Task.objects.filter(worker_id=None, crashes=1))
    assert figure("kill -9 of a child: task is back", back, 0.2)
    worker.kill_everything()


def test_a_worker_started_again_on_its_host_takes_its_tasks_back(
    start_worker: StartWorker, audit: Path, figure: Figure
) -> None:
    first = start_worker("--processes", "1")
    tasks.sleep.enqueue(30, str(audit), "task")
    wait_for(lambda: starts(audit, "task"))
    first.kill_everything()
    begin = time.monotonic()
    second = start_worker("--processes", "1", ready=False)
    wait_for(lambda: Task.objects.filter(crashes=1), 60)
    took = time.monotonic() - begin
    assert figure("worker started again on its host: task is back", took, 2)
    wait_for(lambda: starts(audit, "task") == 2, 60)
    took = time.monotonic() - begin
    # A second more for the project, which the first child has to load.
    assert figure("worker started again on its host: task runs", took, 3)
    second.kill_everything()


def test_the_tasks_of_a_dead_host_run_again_soon_after_the_end_of_its_lease(
    start_worker: StartWorker, audit: Path, figure: Figure
) -> None:
    first = start_worker("--processes", "1", **SHORT)
    tasks.sleep.enqueue(30, str(audit), "task")
    wait_for(lambda: lines(audit))
    start_worker("--processes", "1", **SHORT)
    elsewhere()
    first.kill_everything()
    took = seconds_until(lambda: starts(audit, "task") == 2)
    assert figure("dead host, lease of 6 s: task runs", took, 6 + 5)


# -- a database that is away -----------------------------------------------------------


def test_work_goes_on_within_a_second_after_an_outage(
    start_worker: StartWorker, proxy: Proxy, figure: Figure
) -> None:
    worker = start_worker("--processes", "1", **through(proxy))
    tasks.noop.enqueue().get(timeout=20)
    for away in (0.1, 1, 13):
        proxy.refuse()
        time.sleep(away)
        done = Result.objects.count()
        enqueue_many([tasks.noop.s() for _ in range(5)])
        proxy.accept()
        took = seconds_until(lambda done=done: Result.objects.count() > done)
        assert figure(f"database away for {away} s: first completion", took, 1)
        wait_for(lambda: not Task.objects.exists())
    # At most once per connection and outage, and not once per attempt.
    assert worker.output().count("event=database_unreachable") <= 9
    assert worker.output().count("event=database_reachable") <= 9


def test_a_black_hole_is_over_soon_after_it_heals(
    start_worker: StartWorker, proxy: Proxy, audit: Path, figure: Figure
) -> None:
    lease = {"JOBS_LEASE": "12", "JOBS_HEARTBEAT": "2"}
    worker = start_worker("--processes", "1", **through(proxy), **lease)
    tasks.sleep.enqueue(60, str(audit), "task")
    wait_for(lambda: starts(audit, "task"))
    [child] = worker.children(1)
    away = float(os.environ.get("DJANGO_JOBS_TEST_BLACK_HOLE", 10))
    # On a machine that is taken, even the registration may take that long.
    before = worker.output().count("event=lease_lost")
    proxy.swallow()
    begin = time.monotonic()
    fenced = seconds_until(lambda: worker.output().count("event=lease_lost") > before)
    wait_for(lambda: not is_alive(child))
    assert figure("black hole, lease of 12 s: worker fences itself", fenced, 12)
    time.sleep(max(0.0, begin + away - time.monotonic()))
    done = tasks.noop.enqueue()
    proxy.heal()
    took = seconds_until(lambda: Result.objects.filter(pk=done.id).exists())
    assert figure(f"black hole of {away:g} s: first completion after it", took, 15)


def test_a_worker_stops_in_time_while_its_database_is_away(
    start_worker: StartWorker, proxy: Proxy, audit: Path, figure: Figure
) -> None:
    worker = start_worker("--processes", "1", **through(proxy))
    tasks.sleep.enqueue(0.5, str(audit), "task")
    wait_for(lambda: starts(audit, "task"))
    proxy.refuse()
    wait_for(lambda: "end task" in lines(audit))
    begin = time.monotonic()
    assert worker.stop() == 0
    took = time.monotonic() - begin
    assert figure("stop while the database is away", took, 5)


# -- locks that tell who is dead -------------------------------------------------------

FAST = {"JOBS_FAST_RESCUE": "yes"}


def test_the_tasks_of_a_dead_host_are_back_sooner_where_locks_tell(
    start_worker: StartWorker,
    audit: Path,
    figure: Figure,
    requires: Callable[..., None],
) -> None:
    requires("postgresql")
    first = start_worker("--processes", "1", **FAST)
    wait_for(says(first, "fast_rescue_on"))
    first_id = Worker.objects.get(pid=first.pid).id
    tasks.wait_for_line.enqueue(str(audit), "task", "never")
    wait_for(lambda: starts(audit, "task"))
    start_worker("--processes", "1", **FAST)
    elsewhere()
    first.kill_everything()
    took = seconds_until(lambda: starts(audit, "task") == 2)
    assert figure("dead host, FAST_RESCUE: task runs", took, 12)
    assert not Worker.objects.filter(pk=first_id).exists()


def test_a_worker_that_is_cut_off_has_stopped_before_others_take_its_tasks(
    start_worker: StartWorker, proxy: Proxy, audit: Path, figure: Figure, requires: Any
) -> None:
    requires("postgresql")
    first = start_worker("--processes", "1", **through(proxy), **FAST)
    wait_for(says(first, "fast_rescue_on"))
    tasks.wait_for_line.enqueue(str(audit), "task", "never")
    wait_for(lambda: starts(audit, "task"))
    [child] = first.children(1)
    start_worker("--processes", "1", **FAST)
    elsewhere()
    proxy.swallow()
    proxy.give_up()
    begin = time.monotonic()
    wait_for(lambda: not is_alive(child))
    stopped = time.monotonic() - begin
    assert starts(audit, "task") == 1
    wait_for(lambda: starts(audit, "task") == 2)
    took = time.monotonic() - begin
    assert figure("host cut off, FAST_RESCUE: tasks are stopped", stopped, 10)
    assert figure("host cut off, FAST_RESCUE: task runs elsewhere", took, 12)
    assert "event=lease_lost" in first.output()


# -- a worker that was paused ----------------------------------------------------------


def test_a_worker_that_was_paused_beyond_its_lease_starts_anew_before_all_else(
    start_worker: StartWorker, audit: Path, figure: Figure
) -> None:
    paused = start_worker("--processes", "3", **SHORT)
    children = paused.children(3)
    short = tasks.wait_for_line.enqueue(str(audit), "short", "go")
    endless = tasks.wait_for_line.enqueue(str(audit), "endless", "never")
    wait_for(lambda: starts(audit, "short") and starts(audit, "endless"))
    atomic = tasks.wait_atomically.enqueue(str(audit), "atomic", "go")
    wait_for(lambda: starts(audit, "atomic"))
    paused.send(signal.SIGSTOP)
    # Its children go on meanwhile: one completes the atomic task by itself, another
    # has an outcome that nobody reads, the last does not know that it should stop.
    tasks.audit(str(audit), "go")
    wait_for(lambda: "end short" in lines(audit) and Result.objects.exists())
    elsewhere()
    other = start_worker("--processes", "2", **SHORT)
    wait_for(lambda: starts(audit, "short") == starts(audit, "endless") == 2)
    paused.send(signal.SIGCONT)
    took = seconds_until(lambda: not any(map(is_alive, children)))
    assert figure("SIGCONT beyond the lease: children are dead", took, 1)
    assert "event=lease_lost" in paused.output()
    for result in (atomic, short):
        assert result.get(timeout=20) == "go"
    assert lines(audit).count("end short") == 2
    for result in (short, endless):
        assert Attempt.objects.get(task_id=result.id).verdict == "crashed"
    assert starts(audit, "atomic") == Queue.objects.count() == 1
    other.kill_everything()
    # It goes on under another identity, and takes over in turn.
    wait_for(lambda: starts(audit, "endless") == 3)
    assert census() == {"tasks": 1, "results": 2, "dead letters": 0}
