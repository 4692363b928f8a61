"""What a proxy understands of what goes over a connection: commits, and LISTEN.

Only as much as is needed to lose the answer to a commit, or the commit itself.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

#: A statement that commits by itself, outside a transaction.
WRITES = re.compile(rb"\b(INSERT|UPDATE|DELETE)\b", re.IGNORECASE)
COMMIT = re.compile(rb"\s*COMMIT\b", re.IGNORECASE)


class Tap:
    """Listens to one connection."""

    #: It waits for notifications.
    is_listening = False

    def __init__(self) -> None:
        #: Bytes still to come of a message that began in an earlier chunk.
        self._rest = 0

    def from_client(self, data: bytes) -> bool:
        """Take note of a chunk; tell whether it makes the server commit something."""
        commits = [self._note(message) for message in self._messages(data)]
        return any(commits)

    def from_server(self, data: bytes) -> None:
        """Take note of a chunk of an answer."""

    def _messages(self, data: bytes) -> Iterator[bytes]:
        """Yield the messages that begin in a chunk; the last one may be cut off."""
        at = min(self._rest, len(data))
        self._rest -= at
        while at < len(data):
            size = self._size(data[at:])
            yield data[at : at + size]
            self._rest = max(0, at + size - len(data))
            at += size

    def _size(self, data: bytes) -> int:
        raise NotImplementedError

    def _note(self, message: bytes) -> bool:
        raise NotImplementedError


class PostgreSQLTap(Tap):
    """The protocol of PostgreSQL, version 3, without TLS."""

    def __init__(self) -> None:
        super().__init__()
        self._has_started = False
        self._is_idle = True
        #: Prepared statements by name; b"" is the one without.
        self._texts: dict[bytes, bytes] = {}

    def _size(self, data: bytes) -> int:
        if not self._has_started:
            return int(struct.unpack("!I", data[:4])[0])
        return 1 + int(struct.unpack("!I", data[1:5])[0])

    def _note(self, message: bytes) -> bool:
        if not self._has_started:
            # Also true of a request to cancel, after which nothing comes.
            self._has_started = True
            return False
        kind, body = message[:1], message[5:]
        if kind == b"Q":
            return self._commits(body)
        if kind == b"P":
            name, _, text = body.partition(b"\0")
            self._texts[name] = text
        elif kind == b"B":
            name = body.split(b"\0", 2)[1]
            return self._commits(self._texts.get(name, b""))
        return False

    def _commits(self, text: bytes) -> bool:
        if re.match(rb"\s*LISTEN\b", text):
            self.is_listening = True
        if self._is_idle:
            return WRITES.search(text) is not None
        return COMMIT.match(text) is not None

    def from_server(self, data: bytes) -> None:
        # ReadyForQuery ends every answer and says whether a transaction is open.
        if data[-6:-1] == b"Z\0\0\0\5":
            self._is_idle = data[-1:] == b"I"


class MySQLTap(Tap):
    """The protocol of MySQL and MariaDB, without TLS."""

    def __init__(self) -> None:
        super().__init__()
        self._is_autocommit = True

    def _size(self, data: bytes) -> int:
        return 4 + int.from_bytes(data[:3], "little")

    def _note(self, message: bytes) -> bool:
        # A query is the first packet of its exchange.
        if message[3:5] != b"\0\3":
            return False
        text = message[5:]
        if match := re.match(rb"\s*SET autocommit\s*=\s*(\d)", text, re.IGNORECASE):
            self._is_autocommit = match[1] == b"1"
            return False
        if self._is_autocommit:
            return WRITES.search(text) is not None
        return COMMIT.match(text) is not None
