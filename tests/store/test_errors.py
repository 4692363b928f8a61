"""Which errors pass, and which will come again with the same value."""

from __future__ import annotations

import pytest
from django.db import (
    DataError,
    IntegrityError,
    InterfaceError,
    OperationalError,
    ProgrammingError,
    connection,
)
from django.db.utils import Error

from django_jobs.models import Task
from django_jobs.store import Store
from django_jobs.store.errors import is_not_migrated, is_refusal, is_transient
from tests.store.samples import insert, on_both

pytestmark = on_both


def caused(error: Error, **attributes: object) -> Error:
    """Return an error of Django with one of the driver behind it."""
    error.__cause__ = type("DriverError", (Exception,), attributes)()
    return error


TRANSIENT = {
    "connection lost": caused(OperationalError("x"), sqlstate="08006"),
    "administrator": caused(OperationalError("x"), sqlstate="57P01"),
    "too many connections": caused(OperationalError("x"), pgcode="53300"),
    "deadlock": caused(OperationalError("x"), sqlstate="40P01"),
    "lock timeout": caused(OperationalError("x"), sqlstate="55P03"),
    "read-only": caused(OperationalError("x"), sqlstate="25006"),
    "no code": OperationalError("server closed the connection unexpectedly"),
    "closed": InterfaceError("connection already closed"),
    "mysql gone": OperationalError(2006, "gone away"),
    "mysql deadlock": OperationalError(1213, "Deadlock"),
    "mysql lock wait": OperationalError(1205, "Lock wait timeout"),
    "sqlite busy": caused(OperationalError("x"), sqlite_errorcode=5),
    "sqlite busy snapshot": caused(OperationalError("x"), sqlite_errorcode=517),
    "sqlite full": caused(OperationalError("x"), sqlite_errorcode=13),
    "network": ConnectionResetError(),
}
LASTING = {
    "no table": caused(ProgrammingError("x"), sqlstate="42P01"),
    "no table on sqlite": caused(OperationalError("x"), sqlite_errorcode=1),
    "no column on mysql": OperationalError(1054, "Unknown column"),
    "no permission": caused(ProgrammingError("x"), sqlstate="42501"),
    "bug": KeyError("x"),
}
REFUSALS = {
    "data": DataError("x"),
    "integrity": IntegrityError("x"),
    "surrogate": UnicodeEncodeError("utf-8", "\ud800", 0, 1, "x"),
    "number": OverflowError("x"),
    "too large": caused(OperationalError("x"), sqlstate="54000"),
    "packet": OperationalError(1153, "packet bigger than max_allowed_packet"),
}


@pytest.mark.parametrize("name", TRANSIENT)
def test_an_error_that_may_be_over_is_worth_another_try(name: str) -> None:
    assert is_transient(TRANSIENT[name])
    assert not is_refusal(TRANSIENT[name])


@pytest.mark.parametrize("name", LASTING)
def test_an_error_that_lasts_is_neither(name: str) -> None:
    assert not is_transient(LASTING[name])
    assert not is_refusal(LASTING[name])


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal_is_about_the_value(name: str) -> None:
    assert is_refusal(REFUSALS[name])
    assert not is_transient(REFUSALS[name])


def test_a_real_duplicate_is_a_refusal(store: Store) -> None:
    (task_id,) = insert(store)
    task = Task.objects.get(pk=task_id)
    with pytest.raises(IntegrityError) as caught:
        task.save(force_insert=True)
    assert is_refusal(caught.value)
    assert not is_transient(caught.value)


def test_a_real_loss_of_the_connection_passes(store: Store) -> None:
    if connection.vendor == "sqlite":
        pytest.skip("nobody can take a file away")
    own = {"postgresql": "pg_backend_pid()", "mysql": "CONNECTION_ID()"}
    kill = {"postgresql": "SELECT pg_terminate_backend(%s)", "mysql": "KILL %s"}
    other = connection.copy()
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {own[connection.vendor]}")
        number = cursor.fetchone()[0]
    with other.cursor() as cursor:
        cursor.execute(kill[connection.vendor], [number])
    other.close()
    with pytest.raises(Error) as caught:
        store.now()
        store.now()  # the server may take a moment
    assert is_transient(caught.value)
    connection.close()
    assert store.now()


def test_a_real_lack_of_a_table_lasts(store: Store) -> None:
    with pytest.raises(Error) as caught, connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM no_such_table")
    assert not is_transient(caught.value)


@pytest.mark.parametrize("broken", ["table", "column"])
def test_what_is_not_migrated_is_told_from_other_mistakes(broken: str) -> None:
    statements = {
        "table": "INSERT INTO no_such_table (id) VALUES (1)",
        "column": f"INSERT INTO {Task._meta.db_table} (no_such_column) VALUES (1)",
        "nothing": "SELECT 1 +",
    }
    for kind in (broken, "nothing"):
        with pytest.raises(Error) as caught, connection.cursor() as cursor:
            cursor.execute(statements[kind])
        assert is_not_migrated(caught.value) == (kind == broken)
