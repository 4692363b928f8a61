"""A standard stream whose lines become log records."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from typing import TextIO

from django_jobs.worker.standin import StandIn

#: Longest text without a line's end that is held back, in characters.
MOST_HELD = 65536


class LineLogger(StandIn):
    """Takes text in place of a stream and writes it there as formatted records.

    A record has what was written up to a line's end, so a traceback that is written
    at once stays together. It goes to the stream alone, past all loggers: what a task
    prints is not what it logs.

    It never says that it is a terminal, whatever is beneath: nobody shall colour what
    becomes part of a record.
    """

    def __init__(
        self, stream: TextIO, name: str, level: int, formatter: logging.Formatter
    ) -> None:
        super().__init__(stream)
        self._record = (name, level)
        self._formatter = formatter
        # Of each thread: print() writes a text and the end of its line separately.
        # No lock: a signal, or a fork, may come at any moment of a write.
        self._held: dict[threading.Thread, str] = {}
        #: The threads that finish what they write by themselves.
        self._finishing: set[threading.Thread] = set()

    def write(self, text: str) -> int:
        thread = threading.current_thread()
        for part, is_last in _parts(self._held.pop(thread, ""), text):
            if is_last and not part.endswith("\n"):
                self._held[thread] = part
            else:
                self._emit(part)
        return len(text)

    def flush(self) -> None:
        self._stream.flush()

    def finish(self) -> None:
        """Write what was written without the end of a line.

        That is what this thread holds back, and threads that never call this: they
        may be over, or wait for ever. One that is in the middle of a line gets two
        records for it.
        """
        me = threading.current_thread()
        self._finishing.add(me)
        for thread in list(self._held):
            if thread is me or thread not in self._finishing:
                self._emit(self._held.pop(thread, ""))

    def finish_all(self) -> None:
        """Write what any thread has written without the end of a line."""
        for thread in list(self._held):
            self._emit(self._held.pop(thread, ""))

    def _emit(self, held: str) -> None:
        if not (text := held.rstrip("\n")).strip():
            return
        name, level = self._record
        record = logging.LogRecord(name, level, "", 0, text, None, None)
        self._stream.write(self._formatter.format(record) + "\n")
        self._stream.flush()

    def isatty(self) -> bool:
        return False


def _parts(held: str, text: str) -> Iterator[tuple[str, bool]]:
    """Yield parts that are not too long, up to the end of a line where there is one.

    With the last one comes True: what is written next may go on with it. Each is
    formatted, and lives, by itself: all at once would take several times the memory.
    """
    start = 0
    while len(held) + len(text) - start > MOST_HELD:
        end = start + MOST_HELD - len(held)
        end = text.rfind("\n", start, end) + 1 or end
        yield held + text[start:end], False
        held, start = "", end
    if rest := held + text[start:]:
        yield rest, True
