"""The tail of what a task logs, kept for the record of an attempt that fails."""

from __future__ import annotations

import logging
from collections import deque
from contextvars import ContextVar

#: Lines kept per attempt.
MAX_LINES = 200

_FORMAT = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")


class LogTail:
    """The last lines that one attempt logged."""

    __slots__ = ("dropped", "records")

    def __init__(self) -> None:
        self.records: deque[logging.LogRecord] | None = None
        self.dropped = 0

    def add(self, record: logging.LogRecord) -> None:
        if self.records is None:
            self.records = deque(maxlen=MAX_LINES)
        if len(self.records) == MAX_LINES:
            self.dropped += 1
        self.records.append(record)

    def text(self) -> str | None:
        """Return the lines, None when nothing was logged."""
        if self.records is None:
            return None
        lines = [_line(record) for record in self.records]
        if self.dropped:
            lines.insert(0, f"[{self.dropped} earlier lines dropped]")
        return "\n".join(lines)


def _line(record: logging.LogRecord) -> str:
    try:
        return _FORMAT.format(record)
    except Exception as error:
        return f"[a log line that cannot be formatted: {type(error).__name__}]"


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


def new_tail() -> LogTail:
    """Start the tail of an attempt in the current context."""
    tail = LogTail()
    _tail.set(tail)
    return tail
