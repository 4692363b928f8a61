"""How the parent's threads reach its loop: a call to make, and a byte to wake it."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable
from contextlib import suppress


class Mailbox:
    """Calls that other threads (or signal handlers) leave for the loop to make."""

    def __init__(self) -> None:
        self._calls: deque[Callable[[], None]] = deque()
        self.receiver, self._sender = socket.socketpair()
        self.receiver.setblocking(False)
        self._sender.setblocking(False)

    def fileno(self) -> int:
        return self.receiver.fileno()

    @property
    def wakeup_fd(self) -> int:
        """Descriptor for ``signal.set_wakeup_fd``."""
        return self._sender.fileno()

    def post(self, call: Callable[[], None]) -> None:
        """Have the loop make a call; from any thread."""
        self._calls.append(call)
        # A full pipe wakes the loop just as well; after the end nobody needs waking.
        with suppress(OSError):
            self._sender.send(b"\0")

    def open(self) -> None:
        """Make the calls left so far; by the loop only."""
        with suppress(BlockingIOError):
            self.receiver.recv(4096)
        for _ in range(len(self._calls)):
            self._calls.popleft()()

    def close(self) -> None:
        self.receiver.close()
        self._sender.close()
