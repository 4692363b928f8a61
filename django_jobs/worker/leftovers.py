"""Transactions that tasks leave open, and their end: no other task may write into them.

A sync task is alone in its thread: what is open at its end and was not before is its
own. Coroutines share one thread, in which several of them may have blocks open across
their awaits. So each connection that a coroutine opens notes who begins transactions.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable, Iterable
from contextlib import suppress
from contextvars import ContextVar
from typing import Any

from asgiref.sync import sync_to_async
from django.db import connections
from django.db.backends.signals import connection_created
from django.db.transaction import TransactionManagementError

from django_jobs import events
from django_jobs.worker.transactions import is_open, open_transactions

logger = logging.getLogger("django_jobs")

#: The id of the task to which a coroutine belongs, and what it calls in threads.
coroutine: ContextVar[str] = ContextVar("django_jobs_coroutine")

#: Asked with the id of the task that began a transaction, None when unknown.
IsOver = Callable[[str | None], bool]
#: By alias the tasks that wrote in a transaction that was rolled back.
Writers = dict[str, set[str | None]]

_WRITE_NOTHING = ("SELECT", "SAVEPOINT", "RELEASE")


def end_transactions(aliases: Iterable[str]) -> None:
    """Roll back what a task left open: the next one must not write into it."""
    for alias in aliases:
        events.log(logger, logging.ERROR, "transaction_left_open", alias=alias)
        with suppress(Exception):
            connections[alias].connection.close()
        # A new wrapper: the old one believes in the transaction for ever.
        del connections[alias]
        _noted.pop((threading.get_ident(), alias), None)


def left_open(aliases: Iterable[str]) -> TransactionManagementError:
    """Return the error of a task that left transactions open."""
    return TransactionManagementError(
        f"the task left a transaction open on {', '.join(sorted(aliases))}; "
        "it was rolled back"
    )


def lost(aliases: Iterable[str]) -> TransactionManagementError:
    """Return the error of a task that wrote into what another one left open."""
    return TransactionManagementError(
        f"what the task wrote on {', '.join(sorted(aliases))} was rolled back, with a "
        "transaction that another task had left open"
    )


# -- of coroutines -----------------------------------------------------------------


class _Noted:
    """A connection opened for a coroutine: who began its transaction, who wrote."""

    def __init__(self, connection: Any) -> None:
        self.connection = weakref.ref(connection)
        self.opener: str | None = None
        self._set_autocommit = type(connection).set_autocommit
        self.writers: set[str | None] = set()
        connection.set_autocommit = self.set_autocommit
        connection.execute_wrappers.append(self.execute)

    def set_autocommit(self, autocommit: bool, *args: Any, **kwargs: Any) -> None:
        """Stand in for the connection's own: Django begins each transaction by it."""
        if not autocommit:
            self.opener = coroutine.get(None)
            self.writers = set()
        self._set_autocommit(self.connection(), autocommit, *args, **kwargs)

    def execute(
        self, execute: Callable[..., Any], sql: Any, *args: Any, **kwargs: Any
    ) -> Any:
        """Note who writes in a transaction; a wrapper of the connection's queries."""
        was_open = self.is_open
        if was_open and not str(sql).startswith(_WRITE_NOTHING):
            self.writers.add(coroutine.get(None))
        result = execute(sql, *args, **kwargs)
        if not was_open and self.is_open:  # begun by SQL
            self.opener, self.writers = coroutine.get(None), set()
        return result

    @property
    def is_open(self) -> bool:
        connection = self.connection()
        return connection is not None and is_open(connection)

    def is_left(self, is_over: IsOver) -> bool:
        return self.is_open and is_over(self.opener)


#: By thread and alias, so that connections of threads that are gone are replaced.
_noted: dict[tuple[int, str], _Noted] = {}


def _note_connection(*, connection: Any, **kwargs: Any) -> None:
    if coroutine.get(None) is None:
        return
    key = (threading.get_ident(), connection.alias)
    known = _noted.get(key)
    if known is None or known.connection() is not connection:
        _noted[key] = _Noted(connection)


connection_created.connect(_note_connection, dispatch_uid="django_jobs.leftovers")


def is_any_open() -> bool:
    """Tell whether some coroutine's connection is inside a transaction.

    Asked after every coroutine, and most have used no connection: without a trip to
    the thread in which they use the ORM.
    """
    return any(noted.is_open for noted in list(_noted.values()))


async def end_left(is_over: IsOver) -> Writers:
    """Roll back what coroutines that are over left open; return who wrote in it."""
    if not any(noted.is_left(is_over) for noted in list(_noted.values())):
        return {}
    return await sync_to_async(_end_left_here, thread_sensitive=True)(is_over)


def _end_left_here(is_over: IsOver) -> Writers:
    # Nothing else runs in this thread now: what is open here is so across awaits.
    thread = threading.get_ident()
    left = {
        alias: noted.writers
        for alias in open_transactions()
        if (noted := _noted.get((thread, alias))) and noted.is_left(is_over)
    }
    end_transactions(left)
    return left
