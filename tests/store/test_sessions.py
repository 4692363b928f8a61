"""What the server ends by itself for a worker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from typing import Any

import pytest
from django.db import Error, OperationalError, connections

from django_jobs.models import Task
from django_jobs.store import Store, get_store
from django_jobs.store import sessions as module
from django_jobs.store.errors import is_contended
from django_jobs.store.sessions import LeaseGuard, SessionGuard
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


def keepalive(options: dict[str, str] | None = None) -> list[str]:
    """Return what a new session has, in seconds and the last in milliseconds."""
    names = ("keepalives_idle", "keepalives_interval", "keepalives_count")
    connection = connections["default"].copy()
    connection.settings_dict["OPTIONS"].update(options or {})
    found = []
    with closing(connection), connection.cursor() as cursor:
        for name in (*names, "user_timeout"):
            cursor.execute(f"SELECT setting FROM pg_settings WHERE name = 'tcp_{name}'")
            found += cursor.fetchone()
    return found


def test_a_session_of_a_task_ends_with_the_lease_when_its_host_is_gone(
    requires: Callable[..., None],
) -> None:
    requires("postgresql")
    guard, before = LeaseGuard("default", 30), of_new()
    guard.start()
    try:
        assert keepalive() == ["10", "5", "4", "30000"]
        mine = {"options": "-c tcp_keepalives_idle=77"}
        assert keepalive(mine) == ["77", "5", "4", "30000"]
        # No limit of a statement is that of a task.
        assert of_new()[:3] == before[:3]
    finally:
        guard.stop()


def test_a_task_is_as_patient_with_a_server_that_is_gone(
    requires: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    requires("postgresql")
    options = {**connections.settings["default"]["OPTIONS"], "keepalives_count": 9}
    monkeypatch.setitem(connections.settings["default"], "OPTIONS", options)
    get_store("default").set_patience(9)
    wanted = {"keepalives_idle": 3, "keepalives_interval": 2, "keepalives_count": 9}
    assert wanted.items() <= options.items()
    assert options["tcp_user_timeout"] == 9_000


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
