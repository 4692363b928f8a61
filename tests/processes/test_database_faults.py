"""The database fails: the worker stays, and no task is lost or done twice."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from django.db import connection

from django_jobs import enqueue_many
from django_jobs.models import Result, Task
from django_jobs.states import State
from tests.processes import tasks
from tests.processes.conftest import StartWorker
from tests.processes.harness import census, finished, wait_for

pytestmark = pytest.mark.django_db(transaction=True)


def end_other_sessions() -> int:
    """Have the server cut all connections to this database but ours."""
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            return cursor.fetchone()[0]
        cursor.execute(
            "SELECT id FROM information_schema.processlist "
            "WHERE db = DATABASE() AND id <> CONNECTION_ID()"
        )
        ids = [row[0] for row in cursor.fetchall()]
        for session in ids:
            try:
                cursor.execute(f"KILL {session}")
            except Exception as error:
                if "Unknown thread" not in str(error):
                    raise
        return len(ids)


def progress_beyond(count: int) -> Callable[[], bool]:
    return lambda: Result.objects.count() > count or not Task.objects.exists()


def test_cut_connections_lose_nothing(
    start_worker: StartWorker, requires: Callable[..., None]
) -> None:
    requires("postgresql", "mysql")
    worker = start_worker("--processes", "2")
    enqueue_many([tasks.sleep.s(0.002) for _ in range(3000)])
    cut = 0
    while Task.objects.exists():
        cut += end_other_sessions()
        # Between two cuts something must get done.
        wait_for(progress_beyond(Result.objects.count()))
    assert cut > 0
    wait_for(finished(3000))
    assert set(Result.objects.values_list("state", flat=True)) == {State.SUCCESSFUL}
    assert worker.process.poll() is None
    assert tasks.add.enqueue(1, 1).get(timeout=20) == 2
    assert worker.stop() == 0
    assert census() == {"tasks": 0, "results": 3001, "dead letters": 0}


def test_a_worker_that_listens_is_woken_again_after_a_cut(
    start_worker: StartWorker, requires: Callable[..., None]
) -> None:
    requires("postgresql")
    # No poll: what runs soon was notified.
    start_worker("--processes", "1", JOBS_POLL="30")
    tasks.noop.enqueue().get(timeout=20)
    end_other_sessions()
    wait_for(lambda: _listeners() == 1)
    tasks.noop.enqueue().get(timeout=20)
    begin = time.monotonic()
    tasks.noop.enqueue().get(timeout=20)
    assert time.monotonic() - begin < 5


def _listeners() -> int:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
            "AND (query LIKE 'LISTEN%%' OR query LIKE '%%pg_notify%%ping%%')"
        )
        return cursor.fetchone()[0]


def test_a_worker_waits_for_a_database_that_is_away_at_its_start(
    start_worker: StartWorker, tmp_path: Path
) -> None:
    result = tasks.add.enqueue(2, 2)
    with connection.cursor() as cursor:
        table = connection.ops.quote_name("django_jobs_worker")
        away = connection.ops.quote_name("django_jobs_worker_away")
        cursor.execute(f"ALTER TABLE {table} RENAME TO {away}")
    try:
        worker = start_worker("--processes", "1", ready=False)
        wait_for(lambda: "event=database_failing" in worker.output())
        assert worker.process.poll() is None
    finally:
        with connection.cursor() as cursor:
            cursor.execute(f"ALTER TABLE {away} RENAME TO {table}")
    assert result.get(timeout=20) == 4
    assert "event=database_back" in worker.output()


def test_a_database_that_is_not_there_is_a_line_and_ends_no_worker(
    start_worker: StartWorker,
) -> None:
    missing = {"DJANGO_JOBS_TEST_NAME_DEFAULT": "/missing/folder/x"}
    worker = start_worker("--processes", "1", ready=False, **missing)
    wait_for(lambda: "event=database_unreachable" in worker.output())
    time.sleep(2)  # several attempts
    assert worker.process.poll() is None
    before = time.monotonic()
    assert worker.stop() == 0
    assert time.monotonic() - before < 2
    assert worker.output().count("event=database_unreachable alias=default error=") == 1
    assert worker.output().count("event=listener_failed") <= 1
    assert "Traceback" not in worker.output()
