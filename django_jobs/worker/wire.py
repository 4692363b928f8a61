"""The private channel between parent and child: one JSON array per line.

JSON and not pickle or marshal: a child runs user code, and whatever it writes must
not be able to do more to the parent than to be refused.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterable
from typing import Any

_CHUNK = 1 << 18
#: What a child may send without the end of a line, in bytes; the parent holds it.
LONGEST = 1 << 26
_encode = json.JSONEncoder(separators=(",", ":")).encode


class BrokenChannel(Exception):
    """What arrived is no message: the other side is not to be trusted any more."""


class Channel:
    """One end of a socket pair that carries messages both ways.

    ``longest`` bounds a message that arrives, in bytes; None trusts the other side.
    """

    def __init__(self, end: socket.socket, longest: int | None = None) -> None:
        self.socket = end
        self.longest = longest
        self._lock = threading.Lock()
        #: The beginning of a message, and its length.
        self._pieces: list[bytes] = []
        self._held = 0
        self._outgoing = bytearray()

    def fileno(self) -> int:
        return self.socket.fileno()

    def close(self) -> None:
        self.socket.close()

    def send(self, message: Iterable[Any]) -> None:
        """Send a message and wait until it is out; for the child's threads."""
        line = _encode(message).encode() + b"\n"
        with self._lock:
            self.socket.sendall(line)

    def post(self, message: Iterable[Any]) -> None:
        """Queue a message and send what can be sent without waiting; the parent's."""
        self._outgoing += _encode(message).encode() + b"\n"
        self.flush()

    def flush(self) -> bool:
        """Send queued bytes without waiting; True when none are left."""
        try:
            while self._outgoing:
                sent = self.socket.send(self._outgoing, socket.MSG_DONTWAIT)
                del self._outgoing[:sent]
        except BlockingIOError:
            return False
        except OSError:
            # The other side is gone; its death is noticed where it is read.
            self._outgoing.clear()
        return True

    def receive(self, flags: int = 0) -> list[list[Any]]:
        """Wait for bytes and return the messages complete so far, perhaps none.

        EOFError when the other side is gone; BlockingIOError with MSG_DONTWAIT when
        there is nothing; BrokenChannel for bytes that are no message or too long a one.
        """
        try:
            data = self.socket.recv(_CHUNK, flags)
        except BlockingIOError:
            raise
        except OSError:
            data = b""
        if not data:
            raise EOFError
        lines, newline, rest = data.rpartition(b"\n")
        if not newline:
            self._hold(rest)
            return []
        lines = b"".join([*self._pieces, lines])
        self._pieces, self._held = [], 0
        self._hold(rest)
        return _decode(lines)

    def _hold(self, piece: bytes) -> None:
        self._held += len(piece)
        if self.longest is not None and self._held > self.longest:
            self._pieces.clear()
            raise BrokenChannel(f"a message of more than {self.longest} bytes")
        if piece:
            self._pieces.append(piece)


def _decode(lines: bytes) -> list[list[Any]]:
    try:
        messages = json.loads(b"[" + lines.replace(b"\n", b",") + b"]")
    except (ValueError, RecursionError) as error:
        raise BrokenChannel(str(error)) from error
    if not all(isinstance(message, list) and message for message in messages):
        raise BrokenChannel("a message must be an array that is not empty")
    return messages  # type: ignore[no-any-return]
