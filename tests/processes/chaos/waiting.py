"""Waiting for what must come, and ports that stay free while a server is down."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable

#: Below the ports that the kernel gives to outgoing connections: one of those could
#: take the port of a server that is down for a moment.
PORTS = range(10_000, 32_000)


def wait_until(what: Callable[[], object], words: str, timeout: float = 60) -> None:
    """Wait for something that must come; RuntimeError when it does not."""
    until = time.monotonic() + timeout
    while not what():
        if time.monotonic() > until:
            raise RuntimeError(f"not within {timeout:g} s: {words}")
        time.sleep(0.02)


def free_port() -> int:
    while True:
        port = random.SystemRandom().choice(PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
