"""What a database error means: never this value again, not migrated, a conflict."""

from __future__ import annotations

from django.db.utils import DataError, Error, IntegrityError

#: MySQL: the transaction was rolled back, or one statement of it; the same again
#: may succeed at once.
RETRY_CODES = frozenset({1020, 1205, 1213})
#: MySQL: the row is too large, or the packet (says the server, says the driver).
REFUSAL_CODES = frozenset({1118, 1153, 2020})
#: MySQL: the connection is gone, before a statement or under it.
LOST_CODES = frozenset({2006, 2013, 2055})
#: A table or a column is not there: PostgreSQL, then MySQL and MariaDB.
MISSING_STATES = frozenset({"42P01", "42703"})
MISSING_CODES = frozenset({1146, 1054})
#: SQLite says it in words only.
MISSING_WORDS = ("no such table", "no such column", "has no column named")


def is_refusal(error: BaseException) -> bool:
    """Return True when the database, or its driver, refuses a value as such."""
    if isinstance(error, (DataError, IntegrityError, ValueError, OverflowError)):
        return True
    if not isinstance(error, Error):
        return False
    # 54: a limit of the program, as the size of a row or of an index entry.
    return _sqlstate(error).startswith("54") or mysql_code(error) in REFUSAL_CODES


def is_not_migrated(error: BaseException) -> bool:
    """Return True when a table or a column of ours is not there (yet)."""
    if _sqlite_code(error) is not None:
        return any(words in str(error) for words in MISSING_WORDS)
    return _sqlstate(error) in MISSING_STATES or mysql_code(error) in MISSING_CODES


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
    """Return True when two transactions were in each other's way (deadlock, 40001)."""
    if not isinstance(error, Error):
        return False
    state = _sqlstate(error)
    return state in ("40001", "40P01") or mysql_code(error) in RETRY_CODES
