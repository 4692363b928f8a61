"""Which errors are about a value, which about a table, and which about neither."""

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
from django_jobs.store.errors import (
    RowsChanged,
    is_conflict,
    is_contended,
    is_not_migrated,
    is_refusal,
)
from tests.store.samples import insert, on_both

pytestmark = on_both


def caused(error: Error, **attributes: object) -> Error:
    """Return an error of Django with one of the driver behind it."""
    error.__cause__ = type("DriverError", (Exception,), attributes)()
    return error


OTHERS = {
    "connection lost": caused(OperationalError("x"), sqlstate="08006"),
    "deadlock": caused(OperationalError("x"), sqlstate="40P01"),
    "no code": OperationalError("server closed the connection unexpectedly"),
    "closed": InterfaceError("connection already closed"),
    "mysql gone": OperationalError(2006, "gone away"),
    "mysql deadlock": OperationalError(1213, "Deadlock"),
    "sqlite busy": caused(OperationalError("x"), sqlite_errorcode=5),
    "network": ConnectionResetError(),
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
    "packet of the driver": OperationalError(2020, "packet too large"),
}


#: Others were in the way, and: is the same again likely to succeed at once?
CONTENTION = {
    "deadlock": (caused(OperationalError("x"), sqlstate="40P01"), True),
    "serialisation": (caused(OperationalError("x"), sqlstate="40001"), True),
    "mysql deadlock": (OperationalError(1213, "Deadlock"), True),
    "mariadb changed": (OperationalError(1020, "Record has changed"), True),
    "rows changed": (RowsChanged("x"), True),
    "lock": (caused(OperationalError("x"), sqlstate="55P03"), False),
    "mysql lock": (OperationalError(1205, "Lock wait timeout exceeded"), False),
    "statement": (caused(OperationalError("x"), sqlstate="57014"), False),
    "mysql statement": (OperationalError(3024, "maximum execution time"), False),
}


@pytest.mark.parametrize("name", CONTENTION)
def test_who_waited_for_long_is_in_contention_but_in_no_conflict(name: str) -> None:
    error, is_sudden = CONTENTION[name]
    assert is_contended(error)
    assert is_conflict(error) == is_sudden


@pytest.mark.parametrize("name", OTHERS)
def test_an_error_without_the_value_is_no_refusal(name: str) -> None:
    assert not is_refusal(OTHERS[name])


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal_is_about_the_value(name: str) -> None:
    assert is_refusal(REFUSALS[name])


def test_a_real_duplicate_is_a_refusal(store: Store) -> None:
    (task_id,) = insert(store)
    task = Task.objects.get(pk=task_id)
    with pytest.raises(IntegrityError) as caught:
        task.save(force_insert=True)
    assert is_refusal(caught.value)


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
