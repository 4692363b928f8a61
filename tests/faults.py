"""Faults of a database: a call of the driver fails, in each way in which it can.

What comes out is what the driver raises. Where there is a server it is the server that
answers with the error, or the connection to it that is really cut.
"""

from __future__ import annotations

import os
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from functools import cache
from typing import Any, NamedTuple

from django.db import connection

from tests.statements import Call


class Mode(StrEnum):
    """What becomes of the call, and of its connection."""

    BEFORE = "before"  #: the database refuses it; nothing was executed
    AFTER = "after"  #: it was executed, and its answer is lost
    UNDONE = "undone"  #: the database refuses it, and rolls the transaction back
    CUT_BEFORE = "cut before"  #: its connection is cut before it gets there
    CUT_AFTER = "cut after"  #: it was executed, and the connection is cut with it


class Trouble(NamedTuple):
    """An error of a database; ``strike`` makes a connection (of a driver) fail so."""

    mode: Mode
    words: str
    strike: Callable[[Any], None]

    def __str__(self) -> str:
        return f"{self.mode}: {self.words}"


class Struck(NamedTuple):
    """A call that was struck."""

    thread: str
    call: Call
    trouble: Trouble

    def __str__(self) -> str:
        text = " ".join(self.call.text.split())[:60]
        what = f"{self.call.verb} {text}".strip()
        mode, words, _ = self.trouble
        return f"{mode}: {what!r} in the thread {self.thread}: {words!r}"


#: Is asked with each call, and how many there were, that one included.
IsMeant = Callable[[Call, int], bool]


def modes() -> list[Mode]:
    """Return the modes of this database: of SQLite no connection can be cut."""
    return list(dict.fromkeys(trouble.mode for trouble in _troubles()))


def troubles(mode: Mode) -> list[Trouble]:
    """Return the errors of a mode on this database."""
    return [trouble for trouble in _troubles() if trouble.mode is mode]


class Faults:
    """Strikes calls, once it is armed; to be handed to ``statements.watched``.

    The calls of the threads in ``spared`` are none of its business.
    """

    def __init__(self) -> None:
        self.spared = {threading.get_ident()}
        #: Since it was armed.
        self.calls = 0
        self.struck: list[Struck] = []
        self._troubles: Sequence[Trouble] = ()
        self._next = 0
        self._is_meant: IsMeant | None = None
        self._lock = threading.Lock()

    def arm(self, troubles: Sequence[Trouble], is_meant: IsMeant) -> None:
        """Strike from now on, with these errors in turn."""
        with self._lock:
            self.calls = 0
            self.struck = []
            self._troubles = troubles
            self._is_meant = is_meant

    def disarm(self) -> None:
        with self._lock:
            self._is_meant = None

    @contextmanager
    def __call__(self, call: Call) -> Iterator[None]:
        trouble = self._choose(call)
        if trouble is None:
            yield
        elif trouble.mode in (Mode.AFTER, Mode.CUT_AFTER) and call.raw is not None:
            yield
            trouble.strike(call.raw)
        else:
            _refuse_connection(call)
            trouble.strike(call.raw)
            yield

    def _choose(self, call: Call) -> Trouble | None:
        if threading.get_ident() in self.spared:
            return None
        with self._lock:
            self.calls += 1
            if self._is_meant is None or not self._is_meant(call, self.calls):
                return None
            trouble = self._troubles[self._next % len(self._troubles)]
            self._next += 1
            name = threading.current_thread().name
            # Without the connection: that is not to outlive those who use it.
            self.struck.append(Struck(name, call._replace(raw=None), trouble))
            return trouble


def nth(number: int) -> IsMeant:
    """Mean the n-th call."""
    return lambda call, count: count == number


def every(number: int) -> IsMeant:
    """Mean every n-th call."""
    return lambda call, count: count % number == 0


def _refuse_connection(call: Call) -> None:
    if call.raw is None:
        raise connection.Database.OperationalError("the database takes no connections")


@cache
def _troubles() -> list[Trouble]:
    vendors = {"sqlite": _sqlite, "postgresql": _postgresql, "mysql": _mysql}
    return vendors[connection.vendor]()


#: Does something to a connection of the driver; None where none could be opened.
Strike = Callable[[Any], None]


def _of_server(
    answers: dict[Any, str],
    refusing: Callable[[Any, str], Strike],
    lose: Strike,
    cuts: dict[str, Strike],
    look: Strike,
) -> list[Trouble]:
    """Return the errors of a server; by ``look`` a driver notices that it is cut."""

    def noticed(cut: Strike) -> Strike:
        def strike(raw: Any) -> None:
            cut(raw)
            look(raw)

        return strike

    return [
        *(
            Trouble(Mode.BEFORE, words, refusing(code, words))
            for code, words in answers.items()
        ),
        Trouble(Mode.AFTER, "timed out", lose),
        *(Trouble(Mode.CUT_BEFORE, words, cut) for words, cut in cuts.items()),
        *(Trouble(Mode.CUT_AFTER, words, noticed(cut)) for words, cut in cuts.items()),
    ]


# -- PostgreSQL -----------------------------------------------------------------------

#: What the server says, by SQLSTATE.
_POSTGRESQL = {
    "40P01": "deadlock detected",
    "40001": "could not serialize access due to concurrent update",
    "55P03": "canceling statement due to lock timeout",
    "57014": "canceling statement due to statement timeout",
    "53100": "could not extend file: No space left on device",
    "25006": "cannot execute this in a read-only transaction",
}


def _postgresql() -> list[Trouble]:
    import psycopg

    def refusing(state: str, words: str) -> Strike:
        raising = (
            f"DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '{state}', "
            f"MESSAGE = '{words}'; END $$"
        )
        # In a pipeline it is answered at the end, and what follows is skipped.
        return lambda raw: raw.execute(raising, prepare=False)

    def lose(raw: Any) -> None:
        raise psycopg.OperationalError("consuming input failed: Connection timed out")

    def cut(raw: Any) -> None:
        if not raw.closed:
            with socket.socket(fileno=os.dup(raw.fileno())) as end:
                end.shutdown(socket.SHUT_RDWR)

    cuts: dict[str, Strike] = {"cut": cut, "closed": lambda raw: raw.close()}
    # In a pipeline this, too, raises at the end.
    look = lambda raw: raw.execute("SELECT 1")  # noqa: E731
    return _of_server(_POSTGRESQL, refusing, lose, cuts, look)


# -- MySQL and MariaDB ----------------------------------------------------------------

#: What the server says, by its number.
_MYSQL = {
    1213: "Deadlock found when trying to get lock; try restarting transaction",
    1205: "Lock wait timeout exceeded; try restarting transaction",
    1020: "Record has changed since last read in table",
    1021: "Disk full; waiting for someone to free some space",
    1290: "The server is running with the --read-only option",
    1317: "Query execution was interrupted",
}
_DEADLOCK = 1213


def _mysql() -> list[Trouble]:
    def refusing(code: int, words: str) -> Strike:
        state = "40001" if code == _DEADLOCK else "HY000"
        raising = (
            f"SIGNAL SQLSTATE '{state}' "
            f"SET MYSQL_ERRNO = {code}, MESSAGE_TEXT = '{words}'"
        )

        def refuse(raw: Any) -> None:
            if code == _DEADLOCK:  # of all of them the only one that does so
                raw.rollback()
            raw.query(raising)

        return refuse

    def lose(raw: Any) -> None:
        words = "Lost connection to server (timed out)"
        raise connection.Database.OperationalError(2013, words)

    def cut(raw: Any) -> None:
        if raw._sock is not None:
            raw._sock.shutdown(socket.SHUT_RDWR)

    # As the driver does when it notices.
    cuts: dict[str, Strike] = {"cut": cut, "closed": lambda raw: raw._force_close()}
    look = lambda raw: raw.query("SELECT 1")  # noqa: E731
    return _of_server(_MYSQL, refusing, lose, cuts, look)


# -- SQLite ---------------------------------------------------------------------------


#: What the library says; the last part undoes the transaction with it.
_SQLITE = [
    (Mode.BEFORE, sqlite3.SQLITE_BUSY, "database is locked"),
    (Mode.BEFORE, sqlite3.SQLITE_LOCKED, "database table is locked"),
    (Mode.BEFORE, sqlite3.SQLITE_READONLY, "attempt to write a readonly database"),
    (Mode.BEFORE, sqlite3.SQLITE_CORRUPT, "database disk image is malformed"),
    (Mode.AFTER, sqlite3.SQLITE_IOERR, "disk I/O error"),
    (Mode.AFTER, sqlite3.SQLITE_INTERRUPT, "interrupted"),
    (Mode.UNDONE, sqlite3.SQLITE_FULL, "database or disk is full"),
    (Mode.UNDONE, sqlite3.SQLITE_IOERR, "disk I/O error"),
    (Mode.UNDONE, sqlite3.SQLITE_NOMEM, "out of memory"),
]
#: Not all of them are of the same class.
_SQLITE_CLASSES: dict[int, type[Exception]] = {
    sqlite3.SQLITE_CORRUPT: sqlite3.DatabaseError,
    sqlite3.SQLITE_NOMEM: MemoryError,
}


def _sqlite() -> list[Trouble]:
    def raising(mode: Mode, code: int, words: str) -> Callable[[Any], None]:
        def strike(raw: Any) -> None:
            if mode is Mode.UNDONE:
                raw.rollback()
            error: Any = _SQLITE_CLASSES.get(code, sqlite3.OperationalError)(words)
            error.sqlite_errorcode = code
            raise error

        return strike

    return [Trouble(each[0], each[2], raising(*each)) for each in _SQLITE]
