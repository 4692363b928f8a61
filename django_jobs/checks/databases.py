"""What a database says of itself: version, journal, isolation."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator
from typing import Any

from django.core.checks import CheckMessage, Error, Warning
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, InterfaceError, connections

from django_jobs.checks.layout import queue_aliases
from django_jobs.store import DIALECTS
from django_jobs.store.tables import lacking, what_is_lacking

#: The oldest versions, by what they bring.
_SQLITE = (3, 37)  # RETURNING, STRICT
_OLDEST = {"PostgreSQL": (14,), "MySQL": (8, 0, 11), "MariaDB": (10, 6)}


def check_databases(
    databases: Collection[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """Return what is wrong with those of the databases that have a queue."""
    messages: list[CheckMessage] = []
    for alias in queue_aliases():
        if alias in (databases or ()):
            messages += _check_database(alias)
    return messages


def _check_database(alias: str) -> list[CheckMessage]:
    connection = connections[alias]
    check = _CHECKS.get(connection.vendor, _check_nothing)
    try:
        return [*check(connection), *_check_tables(connection)]
    except (DatabaseError, InterfaceError, ImproperlyConfigured) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        return [
            Warning(
                f"DATABASES[{alias!r}] could not be checked: {reason}",
                hint="Start the database, or correct how it is reached.",
                id="django_jobs.W010",
            )
        ]


def _check_tables(connection: Any) -> Iterator[CheckMessage]:
    if sys.argv[1:2] == ["migrate"] or connection.vendor not in DIALECTS:
        return  # it asks before it makes them
    if missing := lacking(connection):
        yield Warning(
            f"DATABASES[{connection.alias!r}]: {what_is_lacking(missing)}.",
            hint=f"Run manage.py migrate --database {connection.alias}.",
            id="django_jobs.W013",
        )


def _check_nothing(connection: Any) -> Iterator[CheckMessage]:
    yield from ()


def _check_sqlite(connection: Any) -> Iterator[CheckMessage]:
    version = connection.Database.sqlite_version_info
    if version < _SQLITE:
        yield _too_old(connection, "SQLite", version, _SQLITE)
    if connection.is_in_memory_db():
        return
    [journal] = _row(connection, "PRAGMA journal_mode")
    if journal != "wal":
        yield Warning(
            f"DATABASES[{connection.alias!r}] keeps its journal in the mode {journal}: "
            "who reads keeps out who writes.",
            hint="Add 'init_command': 'PRAGMA journal_mode=WAL; PRAGMA "
            "synchronous=NORMAL' to its OPTIONS.",
            id="django_jobs.W011",
        )


def _check_postgresql(connection: Any) -> Iterator[CheckMessage]:
    connection.ensure_connection()
    version = divmod(connection.pg_version, 10_000)
    if version < _OLDEST["PostgreSQL"]:
        yield _too_old(connection, "PostgreSQL", version, _OLDEST["PostgreSQL"])


def _check_mysql(connection: Any) -> Iterator[CheckMessage]:
    name = "MariaDB" if connection.mysql_is_mariadb else "MySQL"
    version = connection.mysql_version
    if version < _OLDEST[name]:
        yield _too_old(connection, name, version, _OLDEST[name])
        return
    # Its name differs between the two, and between their versions.
    _, isolation = _row(
        connection,
        "SHOW VARIABLES WHERE Variable_name IN "
        "('tx_isolation', 'transaction_isolation')",
    )
    if isolation.upper() != "READ-COMMITTED":
        yield Warning(
            f"DATABASES[{connection.alias!r}] has the isolation level {isolation}: "
            "its locks on gaps make enqueueing and working wait for each other.",
            hint="Set 'isolation_level' in its OPTIONS to 'read committed'.",
            id="django_jobs.W012",
        )


_CHECKS = {
    "sqlite": _check_sqlite,
    "postgresql": _check_postgresql,
    "mysql": _check_mysql,
}


def _row(connection: Any, sql: str) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchone()


def _too_old(
    connection: Any, name: str, version: tuple[int, ...], oldest: tuple[int, ...]
) -> CheckMessage:
    return Error(
        f"DATABASES[{connection.alias!r}] is {name} {_dotted(version)}, too old for "
        "the queue.",
        hint=f"Use {name} {_dotted(oldest)} or later.",
        id="django_jobs.E015",
    )


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
