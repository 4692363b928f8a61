"""What only SQLite does: one writer at a time, times as text, a counter of changes."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime

import pytest
from django.db import OperationalError, connection, transaction
from django.test.utils import CaptureQueriesContext

from django_jobs.models import Task
from django_jobs.records import Demand
from django_jobs.states import Verdict
from django_jobs.store import Store, get_store
from tests.store.samples import (
    WORKER,
    claim,
    claim_new,
    complete,
    insert,
    new_task,
    on_both,
    outcome,
)
from tests.store.test_concurrency import together
from tests.worker.parts import wait_for

pytestmark = on_both


@pytest.fixture
def store(_django_db_helper: None, requires: Callable[..., None]) -> Store:
    requires("sqlite")
    return get_store("default")


@pytest.fixture
def deferred(store: Store) -> Iterator[Store]:
    """Settings without IMMEDIATE, as many projects have them."""
    options = connection.settings_dict["OPTIONS"]
    mode = options.pop("transaction_mode")
    connection.close()
    yield store
    options["transaction_mode"] = mode
    connection.close()


def test_every_move_begins_as_a_writer(deferred: Store) -> None:
    (task,) = claim_new(deferred)
    works: list[Callable[[], object]] = [
        lambda: deferred.cycle(WORKER, [outcome(task)], Demand(1)),
        lambda: deferred.rescue(),
        lambda: deferred.revoke([task.id]),
        lambda: deferred.prune(),
    ]
    for work in works:
        with CaptureQueriesContext(connection) as queries:
            work()
        assert queries[0]["sql"] == "BEGIN IMMEDIATE"


def test_the_projects_own_transactions_stay_as_they_are(deferred: Store) -> None:
    claim_new(deferred)
    with CaptureQueriesContext(connection) as queries, transaction.atomic():
        Task.objects.count()
    assert queries[0]["sql"] == "BEGIN"


def test_many_writers_take_turns(deferred: Store) -> None:
    insert(deferred, 100)

    def work() -> int:
        done = 0
        for _ in range(20):
            insert(deferred)
            for task in claim(deferred, 3):
                complete(
                    deferred, task, Verdict.RETRY if done % 2 else Verdict.SUCCESSFUL
                )
                done += 1
        return done

    assert sum(together(*[work] * 8)) >= 260


def test_a_transaction_mode_survives_a_failure(deferred: Store) -> None:
    connection.ensure_connection()
    mode = connection.transaction_mode
    other = connection.copy()
    other.settings_dict = {**connection.settings_dict}
    with other.cursor() as cursor:
        cursor.execute("BEGIN IMMEDIATE")
        connection.close()
        options = connection.settings_dict["OPTIONS"]
        timeout, options["timeout"] = options["timeout"], 0.01
        with pytest.raises(OperationalError, match="locked"):
            claim(deferred)
        options["timeout"] = timeout
        cursor.execute("ROLLBACK")
    other.close()
    assert connection.transaction_mode == mode


def test_times_are_texts_of_one_length(store: Store) -> None:
    store.insert([new_task(), new_task(delay=5.0)])
    store.insert([new_task(run_after=datetime(2100, 1, 1, tzinfo=UTC), expires_in=9.0)])
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT DISTINCT length(t) FROM (SELECT run_after || '' AS t FROM "
            "django_jobs_task UNION SELECT enqueued_at || '' FROM django_jobs_task)"
        )
        assert cursor.fetchall() == [(26,)]


def test_a_time_of_the_orm_without_microseconds_is_compared_well(store: Store) -> None:
    insert(store, 2, delay=60.0)
    past, future = (datetime(year, 1, 1, tzinfo=UTC) for year in (2020, 2120))
    first, second = Task.objects.all()
    Task.objects.filter(pk=first.pk).update(run_after=past)
    Task.objects.filter(pk=second.pk).update(run_after=future)
    assert store.promote() == 1


def test_a_commit_of_another_connection_changes_the_counter(store: Store) -> None:
    before = store.changes()
    assert store.changes() == before
    thread = threading.Thread(target=lambda: (insert(store), connection.close()))
    thread.start()
    thread.join(60)
    assert store.changes() != before


@pytest.fixture
def rollback_journal(store: Store) -> Iterator[Store]:
    """The journal of SQLite's own choice, in which a reader holds up a commit."""
    # A thread of an earlier test may still have to close its connection.
    wait_for(lambda: _set_journal("DELETE"))
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA busy_timeout = 100")
    yield store
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA journal_mode = WAL")


def _set_journal(mode: str) -> bool:
    with connection.cursor() as cursor, suppress(OperationalError):
        cursor.execute(f"PRAGMA journal_mode = {mode}")
        return cursor.fetchone()[0] == mode.lower()
    return False


@pytest.mark.parametrize("count", [1, 2, 450])
def test_an_insert_that_is_not_committed_raises(
    rollback_journal: Store, count: int
) -> None:
    name = connection.settings_dict["NAME"]
    with closing(sqlite3.connect(name)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM django_jobs_task").fetchall()
        with pytest.raises(OperationalError, match="locked"):
            insert(rollback_journal, count)
    assert not Task.objects.exists()
