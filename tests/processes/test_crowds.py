"""Many workers start at once; many tasks become due at once."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from django.db import connection
from django.db.models import F, Max
from django.utils import timezone

from django_jobs import enqueue_many
from django_jobs.models import Result, Task
from tests.processes import private, tasks
from tests.processes.conftest import StartWorker
from tests.processes.harness import WorkerProcess, census, finished, lines, wait_for

pytestmark = pytest.mark.django_db(transaction=True)

Record = Callable[[str, object], None]
FEW = 5
#: Connections beside those of workers: of this process, and what the server reserves.
SPARE = 20
#: Fifty take a minute; one run of theirs had one connection more than the bound.
MANY = int(os.environ.get("DJANGO_JOBS_TEST_CROWD", "15"))
#: Seconds that a worker may take to come up beside all others, on two cores.
PER_WORKER = 8.0
#: Connections of a worker with one child, as the documentation has them: two cycles,
#: one for the heartbeat, one that listens, and that of the child.
MOST_CONNECTIONS = 5
#: More than are made READY at a time, 5,000; and what the suite has time for.
DUE = [2_000, pytest.param(10_000, marks=pytest.mark.faults)]
#: What a line of the log has that should not be there.
BAD = (" ERROR ", "Traceback", "database_", "_failed", "child_gone", "lease_lost")


@pytest.fixture
def large_server(
    request: pytest.FixtureRequest, requires: Callable[..., None]
) -> Iterator[dict[str, str]]:
    """Have the queue on a server with room for all; return a worker's environment."""
    requires("postgresql")
    with private.nursery() as lent:
        node = private.make_node(
            lent, f"max_connections = {MANY * MOST_CONNECTIONS + SPARE}"
        )
        node.start()
        with private.queue_on(node):
            yield private.environment(node)


def connections_of_others() -> int:
    """Count the sessions of others; 0 where there are none."""
    ask = {
        "postgresql": "SELECT count(*) FROM pg_stat_activity WHERE pid <> "
        "pg_backend_pid() AND datname = current_database()",
        "mysql": "SELECT count(*) FROM information_schema.processlist "
        "WHERE id <> CONNECTION_ID() AND db = DATABASE()",
    }
    with connection.cursor() as cursor:
        cursor.execute(ask.get(connection.vendor, "SELECT 0"))
        count: int = cursor.fetchone()[0]
        return count


def check_together(workers: list[WorkerProcess], audit: Path) -> int:
    """Do all take part, and does none fail? Return how many connections they have."""
    count = len(workers)
    audit.touch()
    # One runs in each worker, until it runs in all.
    enqueue_many(
        [tasks.wait_for_line.s(str(audit), str(n), "all") for n in range(count)]
    )
    enqueue_many([tasks.create_queue.s(f"{n}") for n in range(10 * count)])
    wait_for(lambda: len(lines(audit)) == count, 20 + PER_WORKER * count)
    running = Task.objects.filter(state="RUNNING", name=tasks.wait_for_line.name)
    assert running.values("worker_id").distinct().count() == count
    tasks.audit(str(audit), "all")
    wait_for(finished(11 * count), 20 + PER_WORKER * count)
    most = connections_of_others()
    for worker in workers:
        worker.send(signal.SIGTERM)
    for worker in workers:
        assert worker.wait(20 + PER_WORKER * count) == 0, worker.output()
    assert census() == {"tasks": 0, "results": 11 * count, "dead letters": 0}
    assert not Result.objects.exclude(attempt=1).exists()
    for worker in workers:
        assert [bad for bad in BAD if bad in worker.output()] == [], worker.output()
    return most


def start_together(
    start_worker: StartWorker, count: int, **env: str
) -> list[WorkerProcess]:
    words = ["--processes", "1", "--coroutines", "1"]
    return [start_worker(*words, ready=False, **env) for _ in range(count)]


def test_workers_that_start_together_all_take_part(
    start_worker: StartWorker, audit: Path, record_property: Record
) -> None:
    most = check_together(start_together(start_worker, FEW), audit)
    record_property("figure", f"{FEW} workers, {most} connections")
    assert most <= FEW * MOST_CONNECTIONS


@pytest.mark.faults
def test_many_workers_that_start_together_all_take_part(
    start_worker: StartWorker,
    large_server: dict[str, str],
    audit: Path,
    record_property: Record,
) -> None:
    begin = time.monotonic()
    most = check_together(start_together(start_worker, MANY, **large_server), audit)
    took = time.monotonic() - begin
    record_property("figure", f"{MANY} workers, {most} connections, {took:.0f} s")
    assert most <= MANY * MOST_CONNECTIONS


@pytest.mark.parametrize("count", DUE)
def test_tasks_that_become_due_at_the_same_moment_run_once(
    start_worker: StartWorker, audit: Path, record_property: Record, count: int
) -> None:
    workers = [start_worker("--processes", "1") for _ in range(2)]
    due = timezone.now() + timedelta(seconds=3)
    write = tasks.write.using(run_after=due)
    enqueue_many([write.s(str(audit), str(number)) for number in range(count)])
    wait_for(finished(count), 120)
    assert sorted(map(int, lines(audit))) == list(range(count))
    assert not Result.objects.exclude(attempt=1).exists()
    assert not Result.objects.filter(started_at__lt=F("run_after")).exists()
    last = Result.objects.aggregate(last=Max("finished_at"))["last"] - due
    record_property("figure", f"{count:,} due at once: {last.total_seconds():.1f} s")
    assert {worker.stop() for worker in workers} == {0}
