"""The time that the database tells: it stands still until it is moved."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

START = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Clock:
    """A clock that a simulation moves, for the database and for workers alike."""

    def __init__(self) -> None:
        self.seconds = 0.0
        #: Tells the database, where it has to be told.
        self.publish: Callable[[], None] = lambda: None

    @property
    def now(self) -> datetime:
        return self.at(0.0)

    def at(self, seconds: float) -> datetime:
        """Return the time so many seconds from now; milliseconds count."""
        return START + timedelta(milliseconds=round(1000 * (self.seconds + seconds)))

    def monotonic(self) -> float:
        """Return what ``time.monotonic`` says to a worker."""
        return 1000.0 + self.seconds

    def restart(self) -> None:
        self.seconds = 0.0
        self.publish()

    def advance(self, seconds: float) -> None:
        self.seconds += seconds
        self.publish()
