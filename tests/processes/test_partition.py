"""A cable is pulled between a worker and its database: no byte passes, and no word.

Unlike the holes of the proxies, nobody confirms what is sent.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from django.conf import settings
from django.core.management import call_command
from django.db import connection

from django_jobs import enqueue_many
from django_jobs.models import Attempt, Queue, Result, Task, Worker
from tests.conftest import cannot_run
from tests.processes import tasks
from tests.processes.apart import MariaDBApart, PostgreSQLApart, ServerApart
from tests.processes.cable import Cable, CannotLay, connections, inside
from tests.processes.chaos.nursery import Nursery
from tests.processes.chaos.servers.mariadb import program
from tests.processes.chaos.servers.postgresql import programs
from tests.processes.conftest import Figure, StartWorker
from tests.processes.harness import (
    WorkerProcess,
    census,
    elsewhere,
    finished,
    is_alive,
    lines,
    says,
    seconds_until,
    wait_for,
)

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.faults]

#: Starts a worker at one end of the cable.
Start = Callable[..., WorkerProcess]
#: How long the cable is out, in seconds: longer than all timeouts of the worker.
AWAY = float(os.environ.get("DJANGO_JOBS_TEST_PARTITION", 18))


@pytest.fixture(scope="module")
def cable() -> Iterator[Cable]:
    if connection.vendor not in ("postgresql", "mysql"):
        pytest.skip("only on postgresql and mysql")
    made = Cable()
    try:
        made.lay()
    except CannotLay as error:
        cannot_run(str(error))
    yield made
    made.remove()


@pytest.fixture(scope="module")
def server(
    cable: Cable, django_db_setup: None, django_db_blocker: Any
) -> Iterator[ServerApart]:
    """A server at one end, with the tables in its database."""
    is_postgresql = connection.vendor == "postgresql"
    if not (programs() if is_postgresql else program("mariadbd")):
        cannot_run("there is no server to start")
    kind = PostgreSQLApart if is_postgresql else MariaDBApart
    nursery = Nursery()
    try:
        made = kind(cable, nursery, str(connection.settings_dict["NAME"]))
        made.start()
        with django_db_blocker.unblock(), _Switched(made):
            call_command("migrate", verbosity=0)
        yield made
    finally:
        nursery.close()


@pytest.fixture
def at_server(server: ServerApart, worker_env: dict[str, str]) -> Iterator[ServerApart]:
    """Have this process, too, use that server."""
    with _Switched(server):
        yield server
        server.end_far_sessions()  # what they have locked would be waited for
        call_command("flush", interactive=False, verbosity=0, inhibit_post_migrate=True)


class _Switched:
    """While it is entered, the connection of the tests is one to another server."""

    def __init__(self, server: ServerApart) -> None:
        self.settings = {"PASSWORD": "", **server.settings}

    def __enter__(self) -> None:
        self.before = {key: connection.settings_dict[key] for key in self.settings}
        self._use(self.settings)

    def __exit__(self, *error: object) -> None:
        self._use(self.before)

    @staticmethod
    def _use(settings: dict[str, Any]) -> None:
        connection.close()
        connection.settings_dict.update(settings)


@pytest.fixture
def start_far(
    at_server: ServerApart, cable: Cable, start_worker: StartWorker
) -> Iterator[Start]:
    """Start a worker at the other end of the cable."""
    yield partial(_start, start_worker, at_server, cable.far)
    cable.plug()


@pytest.fixture
def start_near(
    at_server: ServerApart, cable: Cable, start_worker: StartWorker
) -> Start:
    """Start a worker on the host of the server."""
    return partial(_start, start_worker, at_server, cable.server)


def _start(
    start_worker: StartWorker, server: ServerApart, host: str, *options: str, **env: str
) -> WorkerProcess:
    url = {f"DJANGO_JOBS_TEST_{settings.SERVER.upper()}_URL": server.url}
    return start_worker(*options, prefix=inside(host), **url, **env)


def resources(worker: WorkerProcess) -> tuple[int, int]:
    """Return how many threads its parent has, and descriptors but of connections."""
    of_worker = Path(f"/proc/{worker.pid}")
    threads, descriptors = (
        list((of_worker / name).iterdir()) for name in ("task", "fd")
    )
    return len(threads), len(descriptors) - len(connections(worker.pid))


def keep_busy() -> bool:
    """Give all connections of a worker something to do."""
    return bool(enqueue_many([tasks.noop.s() for _ in range(50)]))


def warm_up(worker: WorkerProcess) -> set[int]:
    """Have it make all the connections that it ever has; return them."""
    most = 4 if connection.vendor == "postgresql" else 3

    def has_all() -> set[int]:
        keep_busy()
        there = connections(worker.pid)
        return there if len(there) == most else set()

    if connection.vendor == "postgresql":
        wait_for(says(worker, "notifications_heard"))
    there = wait_for(has_all, words="all connections are made")
    wait_for(lambda: not Task.objects.exists())
    Result.objects.all().delete()
    return there


def hold_two(audit: Path) -> set[UUID]:
    """Enqueue two tasks that run until they are told; return their ids."""
    names = ("first", "second")
    held = [tasks.wait_for_line.enqueue(str(audit), name, "go") for name in names]
    wait_for(lambda: len(lines(audit)) == len(held))
    return {UUID(each.id) for each in held}


def ticks(audit: Path) -> list[list[float]]:
    """Return when the task ticked, by its run."""
    runs: dict[str, list[float]] = {}
    for line in lines(audit):
        if line.startswith("tick "):
            _, _, pid, at = line.split()
            runs.setdefault(pid, []).append(float(at))
    return list(runs.values())


def none_left(before: set[int], now: Callable[[], set[int]]) -> Callable[[], bool]:
    return lambda: not before & now()


# -- for longer than the timeouts of a connection, and less than the lease -------------


def test_a_partition_ends_calls_in_time_and_what_they_held_is_made_good(
    start_far: Start, server: ServerApart, cable: Cable, audit: Path, figure: Figure
) -> None:
    worker = start_far("--processes", "2", JOBS_LEASE=str(4 * AWAY))
    at_worker, at_server = warm_up(worker), server.far_sessions()
    held, before = hold_two(audit), resources(worker)
    cable.pull()
    begin = time.monotonic()
    tasks.audit(str(audit), "go")
    enqueue_many([tasks.noop.s() for _ in range(20)])
    took = seconds_until(none_left(at_worker, partial(connections, worker.pid)))
    assert figure("partition: the worker has given up its connections", took, 15)
    if connection.vendor == "postgresql":
        wait_for(none_left(at_server, server.far_sessions))
        took = time.monotonic() - begin
        assert figure("partition: the server has given up its sessions", took, 15)
    assert not Result.objects.exists()
    time.sleep(max(0.0, begin + AWAY - time.monotonic()))
    cable.plug()
    begin = time.monotonic()
    took = seconds_until(Result.objects.filter(pk__in=held).exists)
    assert figure(f"partition of {AWAY:g} s: first completion after it", took, 2)
    wait_for(finished(22))
    took = time.monotonic() - begin
    assert figure(f"partition of {AWAY:g} s: all is done", took, 3)
    assert set(Result.objects.values_list("attempt", "crashes")) == {(1, 0)}
    assert (len(lines(audit)), Attempt.objects.count()) == (5, 0)
    assert "event=lease_lost" not in worker.output()
    # A thread closes its dead connection when it is given something to do.
    wait_for(lambda: keep_busy() and resources(worker) == before)
    # Elsewhere the server hears of it when what it sends again arrives.
    wait_for(none_left(at_server, server.far_sessions), 2 * AWAY)
    took = time.monotonic() - begin
    assert figure(f"partition of {AWAY:g} s: no session is left", took, AWAY)
    assert worker.stop() == 0
    wait_for(lambda: not server.far_sessions())


def test_a_partition_shorter_than_all_timeouts_is_nothing(
    start_far: Start, server: ServerApart, cable: Cable, audit: Path
) -> None:
    worker = start_far("--processes", "2", JOBS_HEARTBEAT="1")
    before = warm_up(worker)
    identity = Worker.objects.get().id
    held, children = hold_two(audit), worker.children(2)
    cable.pull()
    time.sleep(1.5)  # what is sent again comes at most as long after that
    cable.plug()
    seen = Worker.objects.get().seen_at
    wait_for(lambda: Worker.objects.get().seen_at > seen)
    assert connections(worker.pid) == before
    tasks.audit(str(audit), "go")
    wait_for(finished(2))
    assert set(Result.objects.values_list("pk", flat=True)) == held
    assert set(Result.objects.values_list("attempt", "crashes")) == {(1, 0)}
    assert (Worker.objects.get().id, worker.children(2)) == (identity, children)
    assert "event=connection_lost" not in worker.output()


def test_a_partition_that_heals_before_the_fence_costs_no_run(
    start_far: Start, start_near: Start, cable: Cable, audit: Path
) -> None:
    far = start_far("--processes", "2", JOBS_LEASE="15", JOBS_HEARTBEAT="1")
    warm_up(far)
    hold_two(audit)
    children = far.children(2)
    start_near("--processes", "2", JOBS_LEASE="15", JOBS_HEARTBEAT="1")
    elsewhere()
    cable.pull()
    wait_for(says(far, "database_silent"))  # the heartbeat gives up first
    cable.plug()
    seen = Worker.objects.get(pid=far.pid).seen_at
    wait_for(lambda: Worker.objects.get(pid=far.pid).seen_at > seen)
    tasks.audit(str(audit), "go")
    wait_for(finished(2))
    assert set(Result.objects.values_list("attempt", "crashes")) == {(1, 0)}
    assert (len(lines(audit)), far.children(2)) == (5, children)
    assert "event=lease_lost" not in far.output()


# -- for longer than the lease ---------------------------------------------------------

#: A lease so short that these tests need not wait long for its end.
SHORT = {"JOBS_LEASE": "9", "JOBS_HEARTBEAT": "1"}


def test_who_is_cut_off_has_stopped_before_others_begin_and_is_too_late_then(
    start_far: Start, start_near: Start, cable: Cable, audit: Path, figure: Figure
) -> None:
    far = start_far("--processes", "2", **SHORT)
    audit.touch()
    endless = tasks.say_time.enqueue(str(audit), "endless", "stop")
    late = tasks.wait_for_line.enqueue(str(audit), "late", "go")
    wait_for(lambda: "start late" in lines(audit) and ticks(audit))
    children = far.children(2)
    near = start_near("--processes", "2", **SHORT)
    near_id = Worker.objects.get(pid=near.pid).id
    elsewhere()
    cable.pull()
    begin = time.monotonic()
    # It ends in time, and nobody but its worker hears of it.
    tasks.audit(str(audit), "go")
    wait_for(lambda: "end late" in lines(audit))
    wait_for(lambda: not any(map(is_alive, children)))
    took = time.monotonic() - begin
    assert figure("cut off, lease of 9 s: children are dead", took, 7)
    wait_for(lambda: len(ticks(audit)) == 2 and Result.objects.exists())
    took = time.monotonic() - begin
    assert figure("cut off, lease of 9 s: tasks run elsewhere", took, 9 + 5)
    first, second = ticks(audit)
    assert figure("cut off, lease of 9 s: first run over", first[-1] - begin, 7)
    assert first[-1] < second[0]
    cable.plug()
    wait_for(lambda: f"event=stale_outcomes tasks={late.id}" in far.output())
    tasks.audit(str(audit), "stop")
    wait_for(finished(2))
    for task in (late, endless):
        assert Result.objects.get(pk=task.id).worker_id == near_id
        assert Attempt.objects.get(task_id=task.id).verdict == "crashed"
    assert near.stop() == 0
    assert tasks.add.enqueue(1, 1).get(timeout=20) == 2
    assert far.stop() == 0
    assert census() == {"tasks": 0, "results": 3, "dead letters": 0}


def test_what_a_task_has_locked_is_free_soon_after_the_lease(
    start_far: Start,
    start_near: Start,
    cable: Cable,
    audit: Path,
    figure: Figure,
    requires: Callable[..., None],
) -> None:
    requires("postgresql")
    start_far("--processes", "1", **SHORT)
    audit.touch()
    # It writes a row that no other transaction can write as long as this one is open.
    result = tasks.wait_atomically.enqueue(str(audit), "atomic", "go")
    wait_for(lambda: lines(audit) == ["start atomic"])
    start_near("--processes", "1", **SHORT)
    elsewhere()
    cable.pull()
    took = seconds_until(lambda: lines(audit) == ["start atomic"] * 2)
    assert figure("cut off in a transaction: its locks are free", took, 9 + 5)
    tasks.audit(str(audit), "go")
    assert result.get(timeout=20) == "go"
    assert Queue.objects.filter(name="atomic").count() == 1


# -- a connection of which only one end is left ----------------------------------------


def test_who_listens_to_nobody_listens_anew_and_polls_until_then(
    start_far: Start,
    server: ServerApart,
    cable: Cable,
    figure: Figure,
    requires: Callable[..., None],
) -> None:
    requires("postgresql")
    # The server gives up the session of a lock before all others, and before we do.
    env = {"JOBS_FAST_RESCUE": "yes", "JOBS_HEARTBEAT": "20", "JOBS_LEASE": "60"}
    worker = start_far("--processes", "1", **env)
    wait_for(says(worker, "fast_rescue_on"))
    listener = server.port_of_lock()
    assert listener in connections(worker.pid)
    cable.pull()
    wait_for(lambda: listener not in server.connections())
    cable.plug()
    begin = time.monotonic()
    assert listener in connections(worker.pid)
    tasks.noop.enqueue().get(timeout=20)
    took = time.monotonic() - begin
    assert figure("listener half open: a task is polled", took, 2)
    wait_for(lambda: worker.output().count("event=notifications_heard") == 2, 60)
    took = time.monotonic() - begin
    assert figure("listener half open: it listens again", took, 5)
    wait_for(server.port_of_lock)
    assert "event=connection_lost" not in worker.output()
