"""The volume of PostgreSQL's WAL is full: the server panics, and nothing is lost."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from django.db import DatabaseError, connection

from django_jobs.models import Result
from tests.processes import private, tasks
from tests.processes.chaos.faults.servers import fill
from tests.processes.chaos.servers.cluster import Node
from tests.processes.conftest import StartWorker
from tests.processes.harness import census, lines, wait_for

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.faults]

ROOM = 160 * 1024 * 1024
#: No file of the WAL is used again, so that the next one needs room.
SMALL = ("wal_recycle = off", "wal_keep_size = 0", "max_wal_size = 64MB")
#: Characters that a task carries: some hundred of them fill a file of the WAL.
LOAD = 50_000


@pytest.fixture
def node(requires: Callable[..., None]) -> Iterator[Node]:
    requires("postgresql")
    with private.nursery() as lent:
        made = private.make_node(lent, *SMALL, wal_room=ROOM)
        made.start()
        with private.queue_on(made):
            yield made


def enqueue_until_it_fails(audit: Path, most: int) -> list[str]:
    """Return the ids of the tasks whose enqueue was answered."""
    ids = []
    for number in range(most):
        load = secrets.token_hex(LOAD // 2)
        try:
            ids.append(tasks.carry.enqueue(str(audit), str(number), load).id)
        except DatabaseError:
            return ids
    raise AssertionError(f"{most} tasks of {LOAD} characters fit")


def come_back(node: Node) -> None:
    """Start the server again, unless it does so by itself."""
    assert node.process is not None
    try:
        wait_for(node.answers, 10)
    except RuntimeError:
        node.start()


def test_nothing_is_lost_with_a_full_volume_of_the_wal(
    node: Node,
    start_worker: StartWorker,
    audit: Path,
    record_property: Callable[[str, object], None],
) -> None:
    worker = start_worker("--processes", "2", **private.environment(node))
    assert tasks.add.enqueue(1, 1).get(timeout=20) == 2
    ballast = node.wal / "ballast"
    fill(ballast)
    ids = enqueue_until_it_fails(audit, 5000)
    log = node.nursery.folder / "private.log"
    wait_for(lambda: "PANIC" in log.read_text())
    wait_for(lambda: "event=database_unreachable" in worker.output())
    ballast.unlink()
    begin = time.monotonic()
    come_back(node)
    connection.close()
    up = time.monotonic()
    assert tasks.add.enqueue(1, 1).get(timeout=60) == 2
    wait_for(lambda: not census()["tasks"], 60)
    figure = f"{len(ids)} acknowledged, server up after {up - begin:.1f} s, "
    figure += f"all done {time.monotonic() - up:.1f} s later"
    record_property("figure", figure)
    done = {str(each) for each in Result.objects.values_list("pk", flat=True)}
    assert set(ids) <= done
    assert {str(number) for number in range(len(ids))} <= set(lines(audit))
    assert census()["dead letters"] == 0
    assert worker.process.poll() is None
    assert worker.stop() == 0
