"""The database fails: the worker stays, and no task is lost or done twice."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from django.db import connection

from django_jobs import enqueue_many
from django_jobs.models import Result, Task, Worker
from django_jobs.states import State
from tests.processes import tasks
from tests.processes.conftest import StartWorker
from tests.processes.harness import WorkerProcess, census, finished, wait_for
from tests.tables import without

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


def test_a_worker_waits_while_a_column_is_missing_and_says_so_in_a_line(
    start_worker: StartWorker,
) -> None:
    worker = start_worker("--processes", "1", JOBS_HEARTBEAT="0.2")
    columns = [(Task, "lease"), (Result, "prune_at"), (Worker, "seen_at")]
    for times, (model, column) in enumerate(columns, start=1):
        begun = Result.objects.count()
        enqueue_many([tasks.sleep.s(0.02) for _ in range(50)])
        wait_for(progress_beyond(begun))
        with without(model, column):
            said = f"{times} lines of {model.__name__}.{column}"
            wait_for(lambda: beginnings(worker) == times, words=said)  # noqa: B023
            time.sleep(1)  # several attempts
        wait_for(finished(50 * times))
        wait_for(lambda: endings(worker) == times)  # noqa: B023
        assert beginnings(worker) == times
    assert set(Result.objects.values_list("state", flat=True)) == {State.SUCCESSFUL}
    assert worker.output().count('hint="run manage.py migrate --database') == times
    assert "Traceback" not in worker.output()
    assert worker.stop() == 0


def beginnings(worker: WorkerProcess) -> int:
    return worker.output().count("event=database_not_migrated")


def endings(worker: WorkerProcess) -> int:
    return worker.output().count("event=database_migrated")


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
