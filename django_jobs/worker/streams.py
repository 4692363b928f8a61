"""A standard stream whose lines become log records."""

from __future__ import annotations

import io
import logging
import threading
from typing import TextIO

#: Longest text without a line's end that is held back, in characters.
MOST_HELD = 65536


class LineLogger(io.TextIOBase):
    """Takes text in place of a stream and writes it there as formatted records.

    A record has what was written up to a line's end, so a traceback that is written
    at once stays together. It goes to the stream alone, past all loggers: what a task
    prints is not what it logs.
    """

    def __init__(
        self, stream: TextIO, name: str, level: int, formatter: logging.Formatter
    ) -> None:
        self._stream = stream
        self._record = (name, level)
        self._formatter = formatter
        # Of each thread: print() writes a text and the end of its line separately.
        self._local = threading.local()

    def write(self, text: str) -> int:
        held = getattr(self._local, "held", "") + text
        if held.endswith("\n") or len(held) > MOST_HELD:
            held = self._emit(held)
        self._local.held = held
        return len(text)

    def flush(self) -> None:
        self._stream.flush()

    def finish(self) -> None:
        """Write what this thread has written without the end of a line."""
        self._local.held = self._emit(getattr(self._local, "held", ""))

    def _emit(self, held: str) -> str:
        if not (text := held.rstrip("\n")).strip():
            return ""
        name, level = self._record
        record = logging.LogRecord(name, level, "", 0, text, None, None)
        self._stream.write(self._formatter.format(record) + "\n")
        self._stream.flush()
        return ""

    # -- what else is asked of a standard stream -------------------------------------

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._stream.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._stream.encoding

    @property
    def buffer(self) -> object:
        """The bytes beneath; who writes there writes past us."""
        return getattr(self._stream, "buffer", None)
