"""What the server ends by itself for a worker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from typing import Any

import pytest
from django.db import Error, OperationalError, connections

from django_jobs.models import Task
from django_jobs.store import Store
from django_jobs.store import sessions as module
from django_jobs.store.errors import is_contended
from django_jobs.store.sessions import SessionGuard
from django_jobs.worker.outage import is_trouble
from tests.store.samples import WORKER, claim_new, on_both
from tests.worker.parts import wait_for

pytestmark = on_both

#: Where the server says what applies in a session; times in seconds, some as words.
SETTINGS = {
    "postgresql": "SELECT setting FROM pg_settings WHERE name IN ('lock_timeout', "
    "'statement_timeout', 'idle_in_transaction_session_timeout', "
    "'tcp_keepalives_idle') ORDER BY name",
    "mariadb": "SELECT @@innodb_lock_wait_timeout, @@idle_transaction_timeout",
    "mysql": "SELECT @@innodb_lock_wait_timeout, 20",
    "sqlite": "SELECT 'nothing'",
}
EXPECTED = {
    "postgresql": ["20000", "2000", "30000", "5"],
    "mariadb": [2, 20],
    "mysql": [2, 20],
    "sqlite": ["nothing"],
}


@pytest.fixture
def guard() -> Iterator[SessionGuard]:
    made = SessionGuard("default", 20.0)
    made.start()
    yield made
    made.stop()


def kind(connection: Any) -> str:
    is_mariadb = getattr(connection, "mysql_is_mariadb", False)
    return "mariadb" if is_mariadb else str(connection.vendor)


def told(connection: Any) -> list[Any]:
    """Return what applies in the session of a connection."""
    with connection.cursor() as cursor:
        cursor.execute(SETTINGS[kind(connection)])
        rows = cursor.fetchall()
    return [value for row in rows for value in row]


def of_new(options: dict[str, str] | None = None, alias: str = "default") -> list[Any]:
    """Return what applies in a new session."""
    connection = connections[alias].copy()
    connection.settings_dict["OPTIONS"].update(options or {})
    with closing(connection):
        return told(connection)


def test_a_new_session_of_a_worker_has_limits(guard: SessionGuard) -> None:
    assert of_new() == EXPECTED[kind(connections["default"])]


def test_others_have_none(guard: SessionGuard) -> None:
    before = of_new(alias="other")
    guard.stop()
    assert of_new() == before
    assert (before == EXPECTED["sqlite"]) is (kind(connections["default"]) == "sqlite")


def test_what_the_project_sets_is_left_alone(
    guard: SessionGuard, requires: Callable[..., None]
) -> None:
    requires("postgresql")
    assert of_new({"options": "-c lock_timeout=7000"})[1] == "7000"


def test_sessions_that_a_pooler_shares_out_are_left_alone(
    guard: SessionGuard, requires: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    requires("postgresql")
    elsewhere = module.SET_POSTGRESQL.replace("= %s AND NOT", "= 1 + %s AND NOT")
    monkeypatch.setattr(module, "SET_POSTGRESQL", elsewhere)
    assert of_new()[:3] == ["0", "0", "0"]


@pytest.mark.parametrize("name", ["SET_POSTGRESQL", "SET_MYSQL", "SET_MARIADB"])
def test_a_server_that_does_not_know_them_is_no_fault(
    guard: SessionGuard, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(module, name, "SELECT nonsense(%s)")
    assert len(of_new()) == len(EXPECTED[kind(connections["default"])])


def test_a_connection_that_breaks_meanwhile_is_one(
    guard: SessionGuard, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose(cursor: Any, connection: Any, idle: int) -> None:
        monkeypatch.setattr(connection, "is_usable", lambda: False)
        raise OperationalError("server closed the connection unexpectedly")

    monkeypatch.setattr(module, "set_limits", lose)
    with pytest.raises(OperationalError):
        of_new()


def test_rows_that_a_paused_worker_had_locked_are_free_soon(
    guard: SessionGuard, requires: Callable[..., None], store: Store
) -> None:
    requires("postgresql", "mariadb")
    guard.idle = 1
    (task,) = claim_new(store)
    store.expire_workers([WORKER])
    with closing(connections["default"].copy()) as paused, suppress(Error):
        lock_row(paused, task.id)
        assert store.rescue() == []
        wait_for(lambda: store.rescue() == [task.id])


def test_who_waits_for_a_row_gives_up_before_the_call_is_cut(
    guard: SessionGuard, requires: Callable[..., None], store: Store, monkeypatch: Any
) -> None:
    requires("postgresql", "mysql")
    monkeypatch.setattr(module, "LOCK_WAIT", 1)
    (task,) = claim_new(store)
    with (
        closing(connections["default"].copy()) as one,
        closing(connections["default"].copy()) as other,
    ):
        lock_row(one, task.id)
        with pytest.raises(OperationalError) as caught:
            lock_row(other, task.id)
        assert is_contended(caught.value)
        assert not is_trouble(caught.value)


def lock_row(connection: Any, task_id: str) -> None:
    """Lock the row of a task in a transaction that stays open."""
    task = Task._meta.get_field("id").get_db_prep_value(task_id, connection)
    connection.set_autocommit(False)
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT id FROM {Task._meta.db_table} WHERE id = %s FOR UPDATE", [task]
        )
