"""Says that a database is away and that it is back, without a line per attempt."""

from __future__ import annotations

import logging
import threading
import time

from django.db import InterfaceError, OperationalError

from django_jobs import events
from django_jobs.store.errors import is_not_migrated
from django_jobs.texts import shorten

logger = logging.getLogger("django_jobs")

#: Seconds between two lines about the same outage.
REPEAT = 30.0
#: Characters of an error.
_LENGTH = 300
_TROUBLE = (OperationalError, InterfaceError, OSError)


def is_trouble(error: BaseException) -> bool:
    """Tell trouble with a server or the way to it from a fault in what was asked.

    Its message says all there is to say; of the other, the traceback is wanted.
    """
    return isinstance(error, _TROUBLE) and not is_not_migrated(error)


def in_a_line(error: BaseException) -> str:
    """Return the message of an error, its spaces and line breaks as one space each."""
    return shorten(" ".join(str(error).split()) or type(error).__name__, _LENGTH)


class Outage:
    """The outages of a database as several threads notice them.

    One is over when something succeeds and all have succeeded, or given up, that had
    failed: one connection may be refused while another is still served.
    """

    def __init__(
        self,
        alias: str,
        begins: str = "database_unreachable",
        ends: str = "database_reachable",
        level: int = logging.ERROR,
    ) -> None:
        self.alias = alias
        self.is_on = False
        self._events = begins, ends
        self._level = level
        self._failing: set[object] = set()
        self._said = float("-inf")
        self._lock = threading.Lock()

    def failed(self, who: object, error: BaseException, retry_in: float) -> None:
        """Note that ``who`` failed and tries again in so many seconds."""
        with self._lock:
            self._failing.add(who)
            now = time.monotonic()
            if self.is_on and now < self._said + REPEAT:
                return
            self.is_on, self._said = True, now
        events.log(
            logger,
            self._level,
            self._events[0],
            alias=self.alias,
            error=in_a_line(error),
            retry_in=float(retry_in),
        )

    def gave_up(self, who: object) -> None:
        """Note that ``who`` will not try again."""
        with self._lock:
            self._failing.discard(who)

    def succeeded(self, who: object) -> None:
        """Note that the database has served ``who``."""
        if not self.is_on:
            return  # as a rule, and a thousand times a second
        with self._lock:
            self._failing.discard(who)
            if self._failing or not self.is_on:
                return
            self.is_on = False
        events.log(logger, logging.WARNING, self._events[1], alias=self.alias)
