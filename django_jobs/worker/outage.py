"""A database that is away: said without a line per attempt, tried without a rush.

The threads of a worker try again in turns, about twice a second in all, however long
the database is away; as soon as one of them is served, the others know.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.db import InterfaceError, OperationalError

from django_jobs import events
from django_jobs.store.errors import is_contended, is_not_migrated
from django_jobs.store.tables import how_to_migrate
from django_jobs.texts import shorten

logger = logging.getLogger("django_jobs")

#: Seconds between two lines about the same outage.
REPEAT = 30.0
#: First and longest pause between two attempts, in seconds, give or take a quarter.
FIRST_PAUSE = 0.05
LONGEST_PAUSE = 0.5
#: Pause of a thread that failed where it must not, in seconds.
FAULT_PAUSE = 1.0
#: Characters of an error.
_LENGTH = 300
_TROUBLE = (OperationalError, InterfaceError, OSError)


def is_trouble(error: BaseException) -> bool:
    """Tell trouble with a server or the way to it from a fault in what was asked.

    Its message says all there is to say; of the other, the traceback is wanted.
    """
    if is_not_migrated(error) or is_contended(error):
        return False
    return isinstance(error, _TROUBLE)


def in_a_line(error: BaseException) -> str:
    """Return the message of an error, its spaces and line breaks as one space each."""
    return shorten(" ".join(str(error).split()) or type(error).__name__, _LENGTH)


def pause_after(failures: int, longest: float = LONGEST_PAUSE) -> float:
    """Return how long to wait after so many failures in a row, in seconds."""
    pause = min(longest, FIRST_PAUSE * 2.0 ** min(failures - 1, 20))
    return pause * random.uniform(0.75, 1.25)  # noqa: S311 - jitter


class Outage:
    """The outages of a database as several threads notice them.

    One is over when something succeeds and all have succeeded, or given up, that had
    failed: one connection may be refused while another is still served.

    With an event for the ``first`` failure of each, it is worth more than INFO only
    when somebody fails again: a connection that was merely cut is replaced at once.
    """

    def __init__(
        self,
        alias: str,
        begins: str = "database_unreachable",
        ends: str = "database_reachable",
        level: int = logging.ERROR,
        hint: str = "",
        first: str = "",
    ) -> None:
        self.alias = alias
        self.is_on = False
        self._also: dict[str, Any] = {"hint": hint} if hint else {}
        self._events = begins, ends
        self._level = level
        self._first = first
        self._failing: set[object] = set()
        # Who has failed in this outage, and when it was last said.
        self._failed: set[object] = set()
        self._said: float | None = None
        #: Notified when waiting may be over.
        self._changed = threading.Condition()
        self._is_closed = False
        # Attempts since somebody was served, and when the next one may be made.
        self._turns = 0
        self._next_turn = 0.0
        # How often all who wait were let go at once, and when last.
        self._releases = 0
        self._released_at = float("-inf")

    def failed(
        self,
        who: object,
        error: BaseException,
        retry_in: float,
        *,
        exc_info: bool = False,
    ) -> None:
        """Note that ``who`` failed and tries again in so many seconds."""
        with self._changed:
            event, level = self._note(who)
        if not event:
            return
        events.log(
            logger,
            level,
            event,
            alias=self.alias,
            error=in_a_line(error),
            retry_in=float(retry_in),
            exc_info=exc_info,
            **self._also,
        )

    def _note(self, who: object) -> tuple[str, int]:
        """Return the event that a failure is, and its level; "" for none."""
        is_first = who not in self._failed
        self.is_on = True
        self._failing.add(who)
        self._failed.add(who)
        if self._first and self._said is None and is_first:
            return self._first, logging.INFO
        now = time.monotonic()
        if self._said is not None and now < self._said + REPEAT:
            return "", 0
        self._said = now
        return self._events[0], self._level

    def gave_up(self, who: object) -> None:
        """Note that ``who`` will not try again."""
        with self._changed:
            self._failing.discard(who)

    def succeeded(self, who: object) -> None:
        """Note that the database has served ``who``."""
        if not self.is_on:
            return  # as a rule, and a thousand times a second
        with self._changed:
            self._failing.discard(who)
            self._release()
            if self._failing or not self.is_on:
                return
            self.is_on = False
            self._failed.clear()
            was_said, self._said = self._said is not None, None
        if was_said:
            events.log(logger, logging.WARNING, self._events[1], alias=self.alias)

    def close(self) -> None:
        """Let nobody wait any more."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    # -- when to try again -----------------------------------------------------------

    def wait(self, failures: int) -> None:
        """Wait, having failed so often in a row, until it is time to try again.

        A connection that was merely cut is replaced at once: the first pauses are
        short. While nobody is served, all who wait share the attempts that one alone
        would make.
        """
        with self._changed:
            due, releases = time.monotonic() + pause_after(failures), self._releases
            while not self._is_closed and self._releases == releases:
                now = time.monotonic()
                rest = max(due, self._next_turn) - now
                if rest <= 0:
                    self._turns += 1
                    self._next_turn = now + pause_after(self._turns)
                    return
                self._changed.wait(rest)

    def _release(self) -> None:
        """Somebody was served: let the others try."""
        now = time.monotonic()
        self._turns, self._next_turn = 0, now
        # Who is refused while others are served must not try as often as they are.
        if now - self._released_at > LONGEST_PAUSE:
            self._releases += 1
            self._released_at = now
        self._changed.notify_all()


@contextmanager
def survived(wait: Callable[[float], object]) -> Iterator[None]:
    """Go on after an error of our own, and wait a moment first.

    A thread that ends is missed by nobody: there would be no sign of life any more, or
    no outcome written, by a worker that runs on.
    """
    try:
        yield
    except Exception:
        part = threading.current_thread().name
        events.log(logger, logging.ERROR, "thread_failed", part=part, exc_info=True)
        wait(FAULT_PAUSE)


def missing_tables(alias: str) -> Outage:
    """Return what tells of tables or columns that are not there (yet)."""
    return Outage(
        alias,
        "database_not_migrated",
        "database_migrated",
        hint=how_to_migrate(alias),
    )
