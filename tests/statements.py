"""Every call that a driver makes to its database, caught on its way there and back.

Django's own ``execute_wrapper`` sees neither a commit nor what the store sends on the
driver's connection. This stands where all of them pass: psycopg 3, sqlite3 and PyMySQL.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import wraps
from typing import Any, NamedTuple
from unittest.mock import patch

from django.db import connection, connections
from django.db.backends.sqlite3 import base as sqlite_base


class Call(NamedTuple):
    """One call of a driver."""

    #: "connect"; "execute"; "commit" and "rollback"; "sync", the end of a pipeline of
    #: psycopg, at which what was executed in it is answered and, outside a transaction,
    #: committed. A transaction that is begun is an "execute" where it is sent alone.
    verb: str
    #: The statement as the driver is given it; empty but for "execute".
    text: str
    #: The driver's connection; None for "connect".
    raw: Any


#: Is entered before a call is made, and left with its answer or its error. What it
#: raises itself comes out of the call.
Around = Callable[[Call], AbstractContextManager[Any]]


@contextmanager
def watched(around: Around) -> Iterator[None]:
    """Hand every call of every thread to ``around``; new connections only.

    Not those that a driver, or ``around``, makes to answer one. The connections of the
    calling thread are closed at both ends.
    """
    connections.close_all()
    around = _outermost(around)
    patches = {
        "sqlite": _patches_of_sqlite,
        "postgresql": _patches_of_psycopg,
        "mysql": _patches_of_pymysql,
    }[connection.vendor](around)
    for each in patches:
        each.start()
    try:
        yield
    finally:
        for each in patches:
            each.stop()
        connections.close_all()


def is_in_transaction(call: Call) -> bool:
    """Tell whether a transaction has been begun when a call is made."""
    if call.raw is None:
        return False
    if connection.vendor == "sqlite":
        return bool(call.raw.in_transaction)
    if connection.vendor == "mysql":
        return not call.raw.get_autocommit()
    return bool(call.raw.info.transaction_status)  # 0 when idle


def _outermost(around: Around) -> Around:
    """Return ``around`` for the calls that are not made inside another one."""
    thread = threading.local()

    @contextmanager
    def outermost(call: Call) -> Iterator[None]:
        if getattr(thread, "is_inside", False):
            yield
            return
        thread.is_inside = True
        try:
            with around(call):
                yield
        finally:
            thread.is_inside = False

    return outermost


def _replaced(
    owner: Any, name: str, around: Around, describe: Callable[..., Call]
) -> Any:
    """Return a patch of a method that goes through ``around``."""
    original = getattr(owner, name)

    @wraps(original)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        with around(describe(self, *args)):
            return original(self, *args, **kwargs)

    return patch.object(owner, name, method)


def _connecting(around: Around, **more: Any) -> Any:
    """Return a patch of the function by which Django connects."""
    driver = connection.Database
    original = driver.connect

    def connect(*args: Any, **kwargs: Any) -> Any:
        with around(Call("connect", "", None)):
            return original(*args, **{**kwargs, **more})

    return patch.object(driver, "connect", connect)


def _statement(raw: Callable[[Any], Any]) -> Callable[..., Call]:
    return lambda self, text, *rest: Call("execute", _as_text(text), raw(self))


def _verb(verb: str, raw: Callable[[Any], Any]) -> Callable[..., Call]:
    return lambda self, *rest: Call(verb, "", raw(self))


def _as_text(query: Any) -> str:
    return query.decode() if isinstance(query, bytes) else str(query)


def _itself(raw: Any) -> Any:
    return raw


# -- psycopg ------------------------------------------------------------------------


def _patches_of_psycopg(around: Around) -> list[Any]:
    import psycopg

    def owner(cursor: Any) -> Any:
        return cursor.connection

    def owner_of_pipeline(pipeline: Any) -> Any:
        return pipeline._conn

    return [
        _connecting(around),
        _replaced(psycopg.Cursor, "execute", around, _statement(owner)),
        _replaced(psycopg.Cursor, "executemany", around, _statement(owner)),
        _replaced(psycopg.Connection, "commit", around, _verb("commit", _itself)),
        _replaced(psycopg.Connection, "rollback", around, _verb("rollback", _itself)),
        _replaced(
            psycopg.Pipeline, "__exit__", around, _verb("sync", owner_of_pipeline)
        ),
    ]


# -- PyMySQL ------------------------------------------------------------------------


def _patches_of_pymysql(around: Around) -> list[Any]:
    from pymysql.connections import Connection

    def begin_or_end(raw: Any) -> Call:
        return Call("execute", "SET AUTOCOMMIT", raw)

    return [
        _connecting(around),
        _replaced(Connection, "_send_autocommit_mode", around, begin_or_end),
        _replaced(Connection, "query", around, _statement(_itself)),
        _replaced(Connection, "commit", around, _verb("commit", _itself)),
        _replaced(Connection, "rollback", around, _verb("rollback", _itself)),
    ]


# -- sqlite3 ------------------------------------------------------------------------


def _patches_of_sqlite(around: Around) -> list[Any]:
    class Connection(sqlite3.Connection):
        """A connection whose own calls are caught; ``Cursor`` below does the rest."""

        def execute(self, text: str, *rest: Any) -> Any:
            with around(Call("execute", text, self)):
                return super().execute(text, *rest)

        def executemany(self, text: str, *rest: Any) -> Any:
            with around(Call("execute", text, self)):
                return super().executemany(text, *rest)

        def commit(self) -> None:
            with around(Call("commit", "", self)):
                super().commit()

        def rollback(self) -> None:
            with around(Call("rollback", "", self)):
                super().rollback()

    def owner(cursor: Any) -> Any:
        return cursor.connection

    cursor = sqlite_base.SQLiteCursorWrapper
    return [
        _connecting(around, factory=Connection),
        _replaced(cursor, "execute", around, _statement(owner)),
        _replaced(cursor, "executemany", around, _statement(owner)),
    ]
