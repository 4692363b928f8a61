"""Ends calls of the database that nobody answers: every call has a deadline.

A proxy or a firewall may go on confirming what is sent and deliver nothing. No timeout
of TCP ends that. So a thread says when a call begins and on which connection, and the
parent's loop cuts the socket of a call on which nothing has moved for too long. The
thread gets an error and goes on as after any other.
"""

from __future__ import annotations

import logging
import os
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, NamedTuple

from django_jobs import events

logger = logging.getLogger("django_jobs")

#: Seconds without a byte in either direction after which a call is given up.
DEADLINE = 15.0
#: It doubles with each failure of what is tried, so often: the server may be slow.
DOUBLINGS = 2
#: Where the kernel does not tell when bytes moved, so many deadlines since its start.
PATIENCE = 4
#: A look that comes so late, in seconds, says more of us than of the database.
PAUSE = 3.0
#: struct tcp_info of Linux: is data sent again and again since nobody confirms it, and
#: the milliseconds since data was last sent and last received.
_TCP_INFO = struct.Struct("2xB41xI4xI")


def lengthened(deadline: float, failures: int) -> float:
    """Return the deadline of what failed so often: who is slow shall get done, too."""
    return float(deadline * 2 ** min(failures, DOUBLINGS))


class Call(NamedTuple):
    """A call under way."""

    name: str
    begin: float
    deadline: float
    connections: tuple[Any, ...]


class Watch:
    """The calls of one thread, one at a time."""

    def __init__(self, alias: str) -> None:
        self.alias = alias
        self.present: Call | None = None

    @contextmanager
    def call(
        self, name: str, *connections: Any, deadline: float = DEADLINE
    ) -> Iterator[None]:
        """Note that a call is under way on one of these connections of Django's."""
        self.present = Call(name, time.monotonic(), deadline, connections)
        try:
            yield
        finally:
            self.present = None

    def look(self, now: float) -> None:
        """Cut the call under way if it is dead; by the parent's loop."""
        call = self.present
        if call is None or now - call.begin < call.deadline:
            return
        if seconds := _cut(call, now):
            if self.present is call:
                self.present = None
            events.log(
                logger,
                logging.WARNING,
                "database_silent",
                alias=self.alias,
                call=call.name,
                seconds=seconds,
            )


class Watchdog:
    """The watches of a worker's threads."""

    def __init__(self) -> None:
        self._watches: list[Watch] = []
        self._looked_at = float("inf")

    def watch(self, alias: str) -> Watch:
        """Return the watch of one more thread."""
        self._watches.append(Watch(alias))
        return self._watches[-1]

    def calls(self) -> list[Call]:
        """Return the calls under way."""
        return [call for watch in self._watches if (call := watch.present)]

    def look(self, now: float) -> None:
        """Cut what is dead; to be called every second or so."""
        was_paused, self._looked_at = now - self._looked_at > PAUSE, now
        if was_paused:
            return  # answers may have come meanwhile: the threads must see them first
        for watch in self._watches:
            watch.look(now)


def _cut(call: Call, now: float) -> float:
    """Cut the sockets of a call; return the seconds of silence, 0 if it may go on.

    On copies of the descriptors: the thread may close its own meanwhile, and the number
    may then be that of another socket, on which something has moved.
    """
    with ExitStack() as stack:
        copies = [
            stack.enter_context(copy)
            for connection in call.connections
            if (copy := _socket_of(connection.connection)) is not None
        ]
        age = now - call.begin
        seconds = min((_silence(copy, age) for copy in copies), default=0.0)
        if seconds < call.deadline:
            return 0.0
        for copy in copies:
            with suppress(OSError):  # the other side was faster
                copy.shutdown(socket.SHUT_RDWR)
        return seconds


def _socket_of(raw: Any) -> socket.socket | None:
    """Return a copy of the socket of a driver's connection, None when it has none."""
    # PyMySQL has no other way to it; the others are asked for their descriptor.
    source = getattr(raw, "_sock", None) or raw
    # What a driver raises when the connection is closed is of its own kind.
    with suppress(Exception):
        return socket.socket(fileno=os.dup(source.fileno()))
    return None


def _silence(connection: socket.socket, age: float) -> float:
    """Return for how many seconds of a call of this age nothing has moved."""
    with suppress(AttributeError, OSError, struct.error):
        size = _TCP_INFO.size
        told = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, size)
        is_repeating, sent, received = _TCP_INFO.unpack(told)
        moved: int = received if is_repeating else min(sent, received)
        return min(age, moved / 1000)
    return age / PATIENCE
