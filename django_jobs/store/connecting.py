"""A connection is whole, or it is closed.

Django keeps a connection on which opening it, or the begin or the end of a transaction,
has failed half way, and takes it for whole the next time.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any


def connected(connection: Any) -> Any:
    """Return a connection that is open, with all that its session is to be set to."""
    try:
        connection.ensure_connection()
    except Exception:
        give_up(connection)
        raise
    return connection


def give_up(connection: Any) -> None:
    """Close a connection after an error; it is replaced also if that fails.

    The driver may raise anew on what is broken. Django forgets its connection however
    that goes.
    """
    with suppress(Exception):
        connection.close()


def close_unless_whole(connection: Any) -> bool:
    """Close a connection that an error has left between transactions; False if it was.

    It would be one whose transactions are managed by hand: all that follows would be
    savepoints of one that nobody ever commits.
    """
    is_whole = bool(connection.autocommit or connection.in_atomic_block)
    if not is_whole:
        give_up(connection)
    return is_whole


def replace_if_dead(connection: Any) -> bool:
    """Close a connection that turns out to be dead between transactions; was it so?

    A transaction is lost with its connection, and only who began it can repeat it.
    """
    if connection.in_atomic_block or not connection.autocommit:
        return False
    raw = connection.connection
    # PyMySQL before 1.2 connects anew when it is asked, without what Django sets up.
    if raw is None or (getattr(raw, "open", True) and connection.is_usable()):
        return False
    connection.close()
    return True
