"""Is a connection inside a transaction? Its driver is asked: Django knows its own only.

A task may begin one by SQL, or turn autocommit off. And what a limit of time raises may
come after the database has begun a transaction and before Django takes note of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from django.db import connections
from django.db.backends.signals import connection_created

#: What PostgreSQL's drivers call a session in a transaction, sound or failed.
_IN_TRANSACTION = (2, 3)
#: What MySQL calls it, in the status that comes with each answer.
_SERVER_STATUS_IN_TRANS = 1

#: Where SQL has begun a transaction, on a driver's connection that does not tell.
_MARK = "_django_jobs_has_begun"
_BEGINS_OR_ENDS = re.compile(
    r"\s*(?:(?P<begins>BEGIN|START\s+TRANSACTION)|COMMIT|ROLLBACK(?!\s+TO))\b",
    re.IGNORECASE,
)


def open_transactions() -> set[str]:
    """Return the aliases on which this thread is inside a transaction."""
    initialized: list[Any] = list(connections.all(initialized_only=True))
    return {each.alias for each in initialized if is_open(each)}


def is_open(connection: Any) -> bool:
    """Tell whether a connection is inside a transaction, whoever began it.

    Where the settings turn autocommit off, only blocks of Django's count: there each
    query is inside one, and the project itself says when it ends.
    """
    if connection.in_atomic_block:
        return True
    if connection.connection is None or not connection.settings_dict["AUTOCOMMIT"]:
        return False
    try:
        return _OF_VENDOR[connection.vendor](connection)
    except connection.Database.Error:
        return False  # closed behind Django's back, and its transaction with it


def _on_sqlite(connection: Any) -> bool:
    return bool(connection.connection.in_transaction)


def _on_postgresql(connection: Any) -> bool:
    raw = connection.connection
    if connection.autocommit and not raw.autocommit:
        return True  # Django's next statement would begin one
    return raw.info.transaction_status in _IN_TRANSACTION


def _on_mysql(connection: Any) -> bool:
    raw = connection.connection
    if connection.autocommit and not raw.get_autocommit():
        return True
    if _tells_status(raw):
        return bool(raw.server_status & _SERVER_STATUS_IN_TRANS)
    return bool(getattr(raw, _MARK, False)) or not connection.autocommit


def _tells_status(raw: Any) -> bool:
    """PyMySQL does; mysqlclient keeps it to itself."""
    return hasattr(raw, "server_status")


def _mark_begun(
    execute: Callable[..., Any], sql: Any, params: Any, many: Any, context: Any
) -> Any:
    """Keep in mind what SQL has begun; a wrapper of a connection's queries."""
    result = execute(sql, params, many, context)
    if match := _BEGINS_OR_ENDS.match(str(sql)):
        setattr(context["connection"].connection, _MARK, bool(match["begins"]))
    return result


def _watch(*, connection: Any, **kwargs: Any) -> None:
    is_mute = connection.vendor == "mysql" and not _tells_status(connection.connection)
    if is_mute and _mark_begun not in connection.execute_wrappers:
        connection.execute_wrappers.append(_mark_begun)


connection_created.connect(_watch, dispatch_uid="django_jobs.transactions")

_OF_VENDOR: dict[str, Callable[[Any], bool]] = {
    "sqlite": _on_sqlite,
    "postgresql": _on_postgresql,
    "mysql": _on_mysql,
}
