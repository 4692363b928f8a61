"""What only PostgreSQL does: one round trip, prepared plans, notifications."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import pytest
from django.core.management import call_command
from django.db import OperationalError, connection, connections, transaction
from django.test import TestCase, override_settings
from django.test.utils import CaptureQueriesContext

from django_jobs.models import Attempt, Result, Task
from django_jobs.records import Demand, Outcome
from django_jobs.states import Verdict
from django_jobs.store import get_store, postgresql
from django_jobs.store.base import CHANNEL
from django_jobs.store.postgresql import PostgreSQLStore
from tests.store.samples import (
    WORKER,
    claim,
    claim_new,
    complete,
    insert,
    on_both,
    outcome,
    places,
)

if find_spec("psycopg") is not None:
    import psycopg

pytestmark = on_both

#: Tests of what psycopg 3 can do and psycopg2 cannot.
psycopg3 = pytest.mark.skipif(
    find_spec("psycopg") is None, reason="psycopg 3 is not installed"
)


@pytest.fixture
def store(
    _django_db_helper: None, requires: Callable[..., None]
) -> Iterator[PostgreSQLStore]:
    requires("postgresql")
    store = get_store("default")
    assert isinstance(store, PostgreSQLStore)
    yield store
    connection.close()


@pytest.fixture
def options(store: PostgreSQLStore) -> Iterator[Callable[..., None]]:
    """Change settings of the database for the next connection."""
    settings = connection.settings_dict
    before = {**settings, "OPTIONS": {**settings["OPTIONS"]}}

    def change(**changes: Any) -> None:
        connection.close()
        connection.close_pool()
        given = changes.pop("settings", {})
        changes |= given.get("OPTIONS", {})
        settings.update({**given, "OPTIONS": settings["OPTIONS"]})
        settings["OPTIONS"].update(changes)

    yield change
    connection.close()
    connection.close_pool()
    settings.clear()
    settings.update(before)


def syncs(work: Callable[[], object]) -> int:
    """Return how often the client waited for the server: its round trips."""
    raw = connection.connection
    with tempfile.TemporaryFile("w+") as trace:
        raw.pgconn.trace(trace.fileno())
        work()
        raw.pgconn.untrace()
        trace.seek(0)
        return trace.read().count("ReadyForQuery")


# -- one round trip ------------------------------------------------------------------


@psycopg3
@pytest.mark.parametrize("queues", [("default",), (), ("default", "b")])
def test_completion_and_claim_are_one_round_trip(
    store: PostgreSQLStore, queues: tuple[str, ...]
) -> None:
    insert(store, 60)
    tasks = claim(store, 5)
    for _ in range(8):  # the first ones prepare the statements
        outcomes = [outcome(task) for task in tasks]
        demand = Demand(5, queues)
        answers: list[Any] = []
        trips = syncs(lambda: answers.append(store.cycle(WORKER, outcomes, demand)))  # noqa: B023
        assert trips == 1
        tasks = answers[0].claimed
    assert Result.objects.count() == 40


@psycopg3
def test_a_pipeline_that_fails_changes_nothing(store: PostgreSQLStore) -> None:
    (task,) = claim_new(store)
    (waiting,) = insert(store)
    demand = Demand(2**70)  # the claim fails after the completion
    with pytest.raises(Exception, match="out of range"):
        store._one_trip(WORKER, [outcome(task)], demand)
    assert (places(task.id), places(waiting)) == (["Task"], ["Task"])


@psycopg3
@pytest.mark.parametrize(
    ("settings", "prepared"),
    [
        ({}, 3),
        ({"DISABLE_SERVER_SIDE_CURSORS": True}, 0),
        ({"OPTIONS": {"prepare_threshold": None}}, 0),
        ({"OPTIONS": {"prepare_threshold": 0}, "DISABLE_SERVER_SIDE_CURSORS": True}, 3),
    ],
    ids=["direct", "pooler", "by option", "a pooler that can"],
)
def test_statements_are_prepared_unless_a_pooler_is_between(
    store: PostgreSQLStore,
    options: Callable[..., None],
    settings: dict[str, Any],
    prepared: int,
) -> None:
    options(settings=settings)
    for _ in range(3):
        complete(store, claim_new(store)[0])
    with connection.cursor() as cursor:
        cursor.execute("SELECT COUNT(*) FROM pg_prepared_statements")
        assert cursor.fetchone()[0] >= prepared
        assert prepared or not find_prepared(cursor)
    assert connection.connection.prepare_threshold == (
        settings.get("OPTIONS", {}).get("prepare_threshold")
    )


@psycopg3
def test_nothing_is_prepared_where_another_answers_than_was_connected_to(
    store: PostgreSQLStore,
    options: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options()
    # Two sessions may know two statements by one name.
    monkeypatch.setattr(psycopg.ConnectionInfo, "backend_pid", 1)
    complete(store, claim_new(store)[0])
    with connection.cursor() as cursor:
        assert not find_prepared(cursor)


def find_prepared(cursor: Any) -> list[Any]:
    cursor.execute("SELECT name FROM pg_prepared_statements")
    return list(cursor.fetchall())


@psycopg3
@pytest.mark.parametrize(
    "given", [{"server_side_binding": True}, {"pool": {"min_size": 1, "max_size": 2}}]
)
def test_other_ways_to_connect_serve_as_well(
    store: PostgreSQLStore, options: Callable[..., None], given: dict[str, Any]
) -> None:
    if "pool" in given and find_spec("psycopg_pool") is None:
        pytest.skip("psycopg_pool is not installed")
    options(**given)
    first, second = claim_new(store, 2)
    insert(store, 2, delay=5.0)
    cycle = store.cycle(WORKER, [outcome(first)], Demand(2))
    complete(store, second, Verdict.RETRY)
    assert (cycle.stale, len(claim(store))) == ([], 1)
    assert Attempt.objects.count() == 1


@psycopg3
def test_no_statement_of_a_cycle_is_compiled(store: PostgreSQLStore) -> None:
    # The plans without sequential scans look as if they were worth it.
    with store._pipeline() as send:
        send(postgresql.PLANS, {})
        answer = send("SHOW jit", {})
    assert answer.fetchone() == ("off",)


def test_settings_of_the_planner_end_with_the_cycle(store: PostgreSQLStore) -> None:
    complete(store, claim_new(store)[0])
    with connection.cursor() as cursor:
        cursor.execute("SHOW enable_seqscan")
        assert cursor.fetchone() == ("on",)


def test_a_locked_task_is_left_out(store: PostgreSQLStore) -> None:
    first, second = insert(store, 2)
    other = connection.copy()
    with other.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute(
            f"SELECT 1 FROM {Task._meta.db_table} WHERE id = %s FOR UPDATE", [first]
        )
        assert [task.id for task in claim(store)] == [second]
    other.close()


def test_a_lock_that_takes_too_long_is_no_reason_to_give_up_an_outcome(
    store: PostgreSQLStore,
) -> None:
    (task,) = claim_new(store)
    with connection.cursor() as cursor:
        cursor.execute("SET lock_timeout = '50ms'")
    other = connection.copy()
    with other.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute(f"LOCK TABLE {Task._meta.db_table}")
        with pytest.raises(OperationalError):
            complete(store, task)
    other.close()
    assert complete(store, task) == []


# -- notifications -------------------------------------------------------------------


@pytest.fixture
def heard(store: PostgreSQLStore) -> Iterator[Callable[[], int]]:
    """How many notifications arrived at another connection so far."""
    other = connection.copy()
    with other.cursor() as cursor:
        cursor.execute(f"LISTEN {CHANNEL}")

    def count() -> int:
        with other.cursor() as cursor:
            cursor.execute("SELECT 1")  # notifications come with any answer
        raw = other.connection
        if hasattr(raw, "notifies") and not callable(raw.notifies):
            raw.poll()
            return len(raw.notifies)
        received.extend(raw.notifies(timeout=0))
        return len(received)

    received: list[Any] = []
    yield count
    other.close()


def arrives(heard: Callable[[], int], number: int) -> bool:
    until = time.monotonic() + 10
    while heard() < number and time.monotonic() < until:
        pass
    return heard() == number


def test_a_notification_reaches_a_listener(
    store: PostgreSQLStore, heard: Callable[[], int]
) -> None:
    assert store.can_notify
    store.notify()
    assert arrives(heard, 1)


def test_a_notification_waits_for_the_end_of_a_transaction(
    store: PostgreSQLStore, heard: Callable[[], int]
) -> None:
    with transaction.atomic(), CaptureQueriesContext(connection) as queries:
        store.notify()
    assert [query["sql"] for query in queries if "notify" in query["sql"]] == []
    assert arrives(heard, 1)


def test_a_test_case_that_plays_the_commit_ends(store: PostgreSQLStore) -> None:
    with (
        transaction.atomic(),
        TestCase.captureOnCommitCallbacks(execute=True) as callbacks,
        CaptureQueriesContext(connection) as queries,
    ):
        store.notify()
    assert len(callbacks) == 1
    assert [query["sql"] for query in queries if "notify" in query["sql"]] == []


@override_settings(DJANGO_JOBS={"NOTIFY": False})
def test_nothing_is_sent_when_the_settings_say_so(
    store: PostgreSQLStore, heard: Callable[[], int]
) -> None:
    store.notify()
    assert heard() == 0


def test_a_notification_that_fails_breaks_nothing(
    store: PostgreSQLStore,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(postgresql, "NOTIFY", "SELECT no_such_function()")
    with caplog.at_level(logging.WARNING, "django_jobs"):
        store.notify()
    assert "notify_failed" in caplog.text
    assert store.now()


# -- storage -------------------------------------------------------------------------


def storage() -> dict[str, list[str]]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT relname, reloptions FROM pg_class "
            "WHERE relname LIKE 'django\\_jobs\\_%' AND reloptions IS NOT NULL"
        )
        return dict(cursor.fetchall())


def test_the_tables_are_vacuumed_early(store: PostgreSQLStore) -> None:
    tables = storage()
    assert "autovacuum_vacuum_threshold=1000" in tables["django_jobs_task"]
    assert "fillfactor=85" in tables["django_jobs_task"]
    assert len(tables) == 5


def test_the_storage_migration_can_be_undone(store: PostgreSQLStore) -> None:
    call_command("migrate", "django_jobs", "0001", verbosity=0)
    try:
        assert storage() == {}
    finally:
        call_command("migrate", "django_jobs", verbosity=0)


# -- what a driver refuses -------------------------------------------------------------


def test_an_outcome_with_a_nul_costs_only_itself(store: PostgreSQLStore) -> None:
    tasks = claim_new(store, 3)
    outcomes: list[Outcome] = [outcome(task, return_value="1") for task in tasks]
    outcomes[1] = outcomes[1]._replace(return_value='"\0"')
    assert store.cycle(WORKER, outcomes, Demand(1)).stale == []
    values = Result.objects.order_by("pk").values_list("return_value", flat=True)
    assert list(values) == ["1", '"\\u0000"', "1"]


def test_the_parent_of_a_worker_connects_outside_of_the_pool(
    requires: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    requires("postgresql")
    pytest.importorskip("psycopg_pool")
    options = {**connections.settings["default"]["OPTIONS"], "pool": {"min_size": 1}}
    monkeypatch.setitem(connections.settings["default"], "OPTIONS", options)
    connections["default"].close()
    store = get_store("default")
    assert store.now()
    pool = connections["default"].pool
    store.set_deadlines()
    assert pool.closed
    assert store.now()
    assert connections["default"].pool is None
    assert options["tcp_user_timeout"] == 10_000
    connections["default"].close()
