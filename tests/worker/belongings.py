"""What a worker has while it runs, and must not leave behind when it is gone.

Threads, descriptors of this process, and sessions of the database that the tests use:
nobody else has that one.
"""

from __future__ import annotations

import gc
import itertools
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress

from django.db import connection, connections

from tests.worker.parts import PATIENCE

#: So many looks at what is there before the garbage is collected, which takes long.
LOOKS = 50
#: How many there are but the one that asks.
_SESSIONS = {
    "postgresql": "SELECT COUNT(*) - 1 FROM pg_stat_activity "
    "WHERE datname = current_database() AND backend_type = 'client backend'",
    "mysql": "SELECT COUNT(*) - 1 FROM information_schema.processlist "
    "WHERE db = DATABASE()",
}


def threads() -> Counter[str]:
    """Count the threads by what they are called, without their numbers."""
    names = (thread.name for thread in threading.enumerate())
    return Counter(name.rstrip("-_0123456789") for name in names)


def sessions() -> int:
    """Return how many sessions the database has but that of the calling thread.

    None on SQLite: what it has open is told by the descriptors. It closes those of a
    file when all of its connections in this process are closed.
    """
    if connection.vendor == "sqlite":
        return 0
    with connection.cursor() as cursor:
        cursor.execute(_SESSIONS[connection.vendor])
        return int(cursor.fetchone()[0])


def descriptors() -> Counter[str]:
    """Count the open descriptors by what they are of."""
    found = Counter[str]()
    for number in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # that of the list itself
            name = os.readlink(f"/proc/self/fd/{number}")
            found[re.sub(r":\[\d+\]", "", name)] += 1
    return found


class Belongings:
    """What there is now; ``more`` tells what has come since and does not go away.

    Counted while the calling thread has no connection: close those of others before.
    """

    def __init__(self) -> None:
        connections.close_all()
        self._threads = threads()
        self._descriptors = descriptors()

    def more(self) -> Iterator[str]:
        if left := _what_stays(lambda: threads() - self._threads):
            yield f"the threads {dict(left)} are left"
        if left := _what_stays(_sessions_of_others):
            yield f"{left.total()} sessions of the database are left"
        connections.close_all()
        if left := _what_stays(lambda: descriptors() - self._descriptors):
            yield f"the descriptors {dict(left)} are left"


def _sessions_of_others() -> Counter[str]:
    return +Counter(sessions=sessions())


def _what_stays(what: Callable[[], Counter[str]]) -> Counter[str]:
    """Return what is still there when there was time to go."""
    deadline = time.monotonic() + PATIENCE / 4
    for look in itertools.count(1):
        if not (found := what()) or time.monotonic() > deadline:
            break
        time.sleep(0.001)
        if look % LOOKS == 0:
            # Django drops a connection that could not be set up; its error holds it.
            gc.collect()
    return found
