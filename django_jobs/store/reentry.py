"""Is this call made in the middle of another one, on the same connection?

A handler of a signal runs wherever the thread is, also while a driver written in
Python waits for an answer. psycopg would wait for its own lock for ever; PyMySQL would
take the answer of the other call for its own, and the other one the rest.
"""

from __future__ import annotations

import sys
from typing import Any

from django_jobs.exceptions import ConnectionBusy

_DRIVERS = ("psycopg.", "pymysql.")


def refuse_inside_call(connection: Any) -> None:
    """Raise ConnectionBusy when this thread is inside a call of that connection."""
    if connection.vendor != "sqlite" and is_inside_call(connection.connection):
        raise ConnectionBusy(
            f"the connection {connection.alias!r} is in the middle of a call, and this "
            "one is made inside it, as a handler of a signal does: have the handler "
            "set a flag, or put something into a queue.SimpleQueue, and make the call "
            "where that is read"
        )


def is_inside_call(raw: Any) -> bool:
    lock = getattr(raw, "lock", None)
    if raw is None or (lock is not None and not lock.locked()):
        return False  # psycopg holds it in every call; another thread may, too
    frame = sys._getframe(1)
    while (back := frame.f_back) is not None:
        frame = back
        if frame.f_globals.get("__name__", "").startswith(_DRIVERS):
            owner = frame.f_locals.get("self")
            if owner is raw or getattr(owner, "connection", None) is raw:
                return True
    return False
