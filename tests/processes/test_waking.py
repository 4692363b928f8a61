"""An idle worker is woken by what is committed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from datetime import timedelta
from importlib.util import find_spec

import pytest
from django.db import transaction

from tests.processes import tasks
from tests.processes.conftest import StartWorker
from tests.processes.harness import wait_for

pytestmark = pytest.mark.django_db(transaction=True)


def waits(count: int) -> list[float]:
    """Return how long each of so many tasks waited for its start, in seconds."""
    found = []
    for _ in range(count):
        result = tasks.noop.enqueue()
        result.get(timeout=20)
        found.append((result.started_at - result.enqueued_at) / timedelta(seconds=1))
    return found


def test_a_task_starts_within_milliseconds_on_an_idle_worker(
    start_worker: StartWorker,
) -> None:
    start_worker("--processes", "1")
    waits(3)
    # The slowest poll is 100 ms; a shared machine needs some room.
    assert statistics.median(waits(20)) < 0.1


def test_a_notification_wakes_long_before_the_poll(
    start_worker: StartWorker, requires: Callable[..., None]
) -> None:
    requires("postgresql", "sqlite")
    start_worker("--processes", "1", JOBS_POLL="60")
    tasks.noop.enqueue().get(timeout=20)
    begin = time.monotonic()
    with transaction.atomic():
        results = [tasks.noop.enqueue() for _ in range(5)]
    for result in results:
        result.get(timeout=20)
    assert time.monotonic() - begin < 10


def test_a_worker_that_hears_nothing_polls(
    start_worker: StartWorker, requires: Callable[..., None], settings
) -> None:
    requires("postgresql")
    start_worker("--processes", "1")
    settings.DJANGO_JOBS = {"NOTIFY": False}
    begin = time.monotonic()
    tasks.noop.enqueue().get(timeout=20)
    assert time.monotonic() - begin < 5


def test_a_worker_hears_its_own_ping(
    start_worker: StartWorker, requires: Callable[..., None]
) -> None:
    requires("postgresql")
    worker = start_worker("--processes", "1", "--log-format", "json")
    tasks.noop.enqueue().get(timeout=20)
    wait_for(lambda: "event=notifications_heard" in worker.output())
    assert "event=notifications_swallowed" not in worker.output()


@pytest.mark.skipif(
    find_spec("psycopg_pool") is None, reason="psycopg_pool is not installed"
)
def test_a_pool_of_the_usual_size_is_enough(
    start_worker: StartWorker, requires: Callable[..., None]
) -> None:
    requires("postgresql")
    worker = start_worker("--processes", "2", DJANGO_JOBS_TEST_POOL="4")
    wait_for(lambda: "event=notifications_heard" in worker.output())
    waits(5)
    assert worker.stop() == 0
    assert "_failed" not in worker.output()


def test_a_notification_tells_of_a_task_that_is_due_soon(
    start_worker: StartWorker, requires: Callable[..., None]
) -> None:
    requires("postgresql", "sqlite")
    start_worker("--processes", "1", JOBS_POLL="60")
    tasks.noop.enqueue().get(timeout=20)
    result = tasks.noop.using(run_after=0.4).enqueue()
    result.get(timeout=20)
    late = result.started_at - result.run_after
    assert timedelta() <= late < timedelta(seconds=0.5)
    wait_for(lambda: result.is_finished)
