"""The tail of what a task logs, kept for the record of an attempt that fails."""

from __future__ import annotations

import logging
from collections import deque
from contextvars import ContextVar

from django_jobs.texts import clean
from django_jobs.tracebacks import name_of

#: Lines kept per attempt, and their bytes unless it is said.
MAX_LINES = 200
MOST_BYTES = 32 * 1024
#: For the line that tells of those that were dropped.
_ROOM = 48

_FORMAT = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")


class LogTail:
    """The last lines that one attempt logged, ``most`` bytes of them.

    Lines and not records: those would keep whatever was passed to the logger, and the
    frames of exceptions with all that is in them, for as long as the attempt runs.
    """

    __slots__ = ("dropped", "lines", "most", "size")

    def __init__(self, most: int = MOST_BYTES) -> None:
        self.lines: deque[str] | None = None
        self.dropped = 0
        self.most = most
        self.size = 0

    def add(self, record: logging.LogRecord) -> None:
        line = _line(record)
        if len(line) > self.most // 4:  # of one line its start and its end will do
            line = clean(line, self.most // 4)
        if self.lines is None:
            self.lines = deque()
        self.lines.append(line)
        self.size += len(line) + 1
        room = self.most - _ROOM
        while self.lines and (len(self.lines) > MAX_LINES or self.size > room):
            self.size -= len(self.lines.popleft()) + 1
            self.dropped += 1

    def text(self) -> str | None:
        """Return the lines, None when nothing was logged."""
        if self.lines is None:
            return None
        lines = [*self.lines]
        if self.dropped:
            lines.insert(0, f"[{self.dropped} earlier lines dropped]")
        return "\n".join(lines)


def _line(record: logging.LogRecord) -> str:
    try:
        return _FORMAT.format(record)
    except Exception as error:
        return f"[a log line that cannot be formatted: {name_of(type(error))}]"


_tail: ContextVar[LogTail | None] = ContextVar("django_jobs_log_tail", default=None)


class _TailHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        tail = _tail.get()
        if tail is not None:
            tail.add(record)


def capture_logs() -> None:
    """Have everything that reaches the root logger kept; once per child.

    A handler on the root logger turns Python's last resort off, by which warnings are
    seen where nothing is configured: here it is put back in its place.
    """
    root = logging.getLogger()
    if not root.handlers and logging.lastResort is not None:
        logging.lastResort.addFilter(was_not_handled)
        root.addHandler(logging.lastResort)
    root.addHandler(_TailHandler())


def was_not_handled(record: logging.LogRecord) -> bool:
    """Tell whether a record came to the root logger past no other handler.

    Python's last resort asks the same; Django's logger has handlers and passes on.
    """
    logger: logging.Logger | None = logging.getLogger(record.name)
    while logger is not None and logger.parent is not None:
        if logger.handlers:
            return False
        logger = logger.parent if logger.propagate else None
    return True


def new_tail(most: int = MOST_BYTES) -> LogTail:
    """Start the tail of an attempt in the current context."""
    tail = LogTail(most)
    _tail.set(tail)
    return tail
