"""What a database error means: a bad value, not migrated, others in the way."""

from __future__ import annotations

from django.db.utils import DatabaseError, DataError, Error, IntegrityError

#: MySQL: the transaction was rolled back, or is to be (a deadlock, a row that changed
#: meanwhile); the same again may succeed at once.
RETRY_CODES = frozenset({1020, 1213})
#: MySQL: the row is too large, or the packet (says the server, says the driver).
REFUSAL_CODES = frozenset({1118, 1153, 2020})
#: MySQL: the connection is gone, before a statement or under it.
LOST_CODES = frozenset({2006, 2013, 2055})
#: Somebody else had a lock for too long: PostgreSQL, then MySQL and MariaDB. Who asks
#: again waits as long again.
LOCK_STATE = "55P03"
LOCK_CODE = 1205
#: A limit of time was over, for a lock or a statement: PostgreSQL, then MySQL and
#: MariaDB.
TIMEOUT_STATES = frozenset({LOCK_STATE, "57014"})
TIMEOUT_CODES = frozenset({LOCK_CODE, 3024, 1969})
#: A table, a column or an index is not there: PostgreSQL (which names no index), then
#: MySQL and MariaDB.
MISSING_STATES = frozenset({"42P01", "42703"})
MISSING_CODES = frozenset({1146, 1054, 1176})
#: MySQL: there is such a table, column or index already; there is none to be dropped.
DONE_CODES = frozenset({1050, 1060, 1061, 1051, 1091})
#: SQLite says these in words only.
UNREADABLE_WORDS = "Could not decode to UTF-8"
MISSING_WORDS = ("no such table", "no such column", "has no column named")


class RowsChanged(DatabaseError):
    """A statement touched other rows than those it was made for.

    What was decided about them is void: the transaction is to be rolled back, and to
    be done again from its first look.
    """


def is_refusal(error: BaseException) -> bool:
    """Return True when the database, or its driver, refuses a value as such."""
    if isinstance(error, (DataError, IntegrityError, ValueError, OverflowError)):
        return True
    if not isinstance(error, Error):
        return False
    # 54: a limit of the program, as the size of a row or of an index entry.
    return _sqlstate(error).startswith("54") or mysql_code(error) in REFUSAL_CODES


def is_unreadable(error: BaseException) -> bool:
    """Return True when what SQLite has in a column may not be what belongs there.

    Nobody else writes meanwhile: rows that are not found again have odd ids.
    """
    return isinstance(error, (TypeError, RowsChanged)) or is_no_text(error)


def is_no_text(error: BaseException) -> bool:
    """Return True when a text of SQLite is none, its bytes not being UTF-8."""
    return UNREADABLE_WORDS in str(error)


def is_not_migrated(error: BaseException) -> bool:
    """Return True when a table or a column of ours is not there (yet)."""
    if _sqlite_code(error) is not None:
        return any(words in str(error) for words in MISSING_WORDS)
    return _sqlstate(error) in MISSING_STATES or mysql_code(error) in MISSING_CODES


def is_done_already(error: BaseException) -> bool:
    """Return True when MySQL finds that a change of a table has been made before."""
    return mysql_code(error) in DONE_CODES


def is_lock_timeout(error: BaseException) -> bool:
    """Return True when a statement gave up waiting for a lock."""
    return _sqlstate(error) == LOCK_STATE or mysql_code(error) == LOCK_CODE


def mysql_code(error: BaseException) -> int | None:
    """Return the error number of MySQL or MariaDB, if it has one."""
    code = error.args[0] if error.args else None
    return code if isinstance(code, int) and not isinstance(code, bool) else None


def _sqlstate(error: BaseException) -> str:
    cause = error.__cause__
    state = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)
    return state or ""


def _sqlite_code(error: BaseException) -> int | None:
    code: int | None = getattr(error.__cause__, "sqlite_errorcode", None)
    return code


def is_conflict(error: BaseException) -> bool:
    """Return True when two transactions were in each other's way (deadlock, 40001).

    Not when one of them has waited for the other: it would wait again.
    """
    if isinstance(error, RowsChanged):
        return True
    if not isinstance(error, Error):
        return False
    state = _sqlstate(error)
    return state in ("40001", "40P01") or mysql_code(error) in RETRY_CODES


def is_contended(error: BaseException) -> bool:
    """Return True when the server answers, but others were in the way for too long."""
    if not isinstance(error, Error):
        return False
    is_timeout = _sqlstate(error) in TIMEOUT_STATES
    return is_timeout or is_conflict(error) or mysql_code(error) in TIMEOUT_CODES
