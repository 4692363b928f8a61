"""A terminal that nobody reads must not stop the worker: what does not fit is dropped.

A pipe, a socket of the journal or a terminal that was stopped by Ctrl-S takes no more
when it is full, and a task can fill it. The worker writes its log there as well: if it
waited, it would enforce no limit, hear no signal, and keep its tasks from all others
for as long as its heartbeat goes on.
"""

from __future__ import annotations

import logging
import os
import select
import socket
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast

from django_jobs import events
from django_jobs.worker.standin import StandIn

logger = logging.getLogger("django_jobs")

#: So long it is waited for a reader, in seconds; not again until he has read something.
PATIENCE = 1.0
#: Sends some bytes and returns how many; BlockingIOError when there is no room.
_Send = Callable[[memoryview], int]


class PatientStream(StandIn):
    """Takes the place of a standard stream and never waits for long."""

    def __init__(self, stream: TextIO, send: _Send, end: socket.socket | int) -> None:
        super().__init__(stream)
        self._send: _Send | None = send
        self._end = end
        #: Texts that nobody read.
        self.dropped = 0

    def release(self) -> None:
        """Close the end of our own; from here on it waits as others do."""
        self._send = None
        os.close(self._end) if isinstance(self._end, int) else self._end.close()

    def write(self, text: str) -> int:
        if self._send is None:
            return self._stream.write(text)
        data = text.encode(self.encoding or "utf-8", "backslashreplace")
        if self._write(memoryview(data), self._send):
            self._tell()
        else:
            self.dropped += 1
        return len(text)

    def _write(self, data: memoryview, send: _Send) -> bool:
        until = time.monotonic() + (0 if self.dropped else PATIENCE)
        while data:
            try:
                data = data[send(data) :]
            except BlockingIOError:
                left = until - time.monotonic()
                if left <= 0 or not select.select([], [self.fileno()], [], left)[1]:
                    return False
        return True

    def _tell(self) -> None:
        """Log what was dropped, now that somebody reads again."""
        dropped, self.dropped = self.dropped, 0
        if dropped:
            events.log(logger, logging.WARNING, "output_dropped", texts=dropped)

    def flush(self) -> None:
        """Do nothing: nothing is held back."""


@contextmanager
def patient_streams() -> Iterator[None]:
    """Have this process, and its log, wait for no reader of its terminal."""
    before = sys.stdout, sys.stderr
    patient = {each: _patient(each) for each in before}
    handlers = [
        (handler, handler.stream)
        for handler in _stream_handlers()
        if any(handler.stream is each for each in before)
    ]
    sys.stdout, sys.stderr = (cast(TextIO, patient[each]) for each in before)
    for handler, stream in handlers:
        handler.setStream(patient[stream])
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        for handler, stream in handlers:
            handler.setStream(stream)
        for one in patient.values():
            if isinstance(one, PatientStream):
                one.release()


def _stream_handlers() -> list[logging.StreamHandler[Any]]:
    root = logging.getLogger()
    known = [root, *root.manager.loggerDict.values()]
    handlers = {one for each in known for one in getattr(each, "handlers", ())}
    return [each for each in handlers if isinstance(each, logging.StreamHandler)]


def _patient(stream: TextIO) -> TextIO | PatientStream:
    """Return a stream that waits for nobody; files never do, and stay as they are."""
    with suppress(OSError, ValueError, AttributeError):  # closed, or no real one
        descriptor = stream.fileno()
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISSOCK(mode):
            end = socket.socket(fileno=os.dup(descriptor))
            return _made(stream, lambda data: end.send(data, socket.MSG_DONTWAIT), end)
        if stat.S_ISFIFO(mode) or os.isatty(descriptor):
            send, own = _sender(descriptor)
            return _made(stream, send, own)
    return stream


def _sender(descriptor: int) -> tuple[_Send, int]:
    """Return what never waits for the reader of a pipe or terminal, and its end."""
    # Opened once more: whether the end of the children waits is not ours.
    flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        own = os.open(f"/dev/fd/{descriptor}", flags)
    except PermissionError:
        # It belongs to the user who started us, as root does before gosu or su.
        own = os.dup(descriptor)
        return lambda data: _write_when_ready(own, data), own
    return lambda data: os.write(own, data), own


def _write_when_ready(descriptor: int, data: memoryview) -> int:
    """Write as much as cannot block, unless another process fills the rest first."""
    if not select.select([], [descriptor], [], 0)[1]:
        raise BlockingIOError
    return os.write(descriptor, data[: select.PIPE_BUF])


def _made(stream: TextIO, send: _Send, end: socket.socket | int) -> PatientStream:
    stream.flush()
    return PatientStream(stream, send, end)
