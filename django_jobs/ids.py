"""Identifiers: UUIDv7, made in Python, so that an id is known before its row exists.

``uuid.uuid7`` arrives with Python 3.14; layout and monotonic counter follow RFC 9562,
section 5.7 and section 6.2, method 1 (a counter in ``rand_a`` and the first bits of
``rand_b``).
"""

from __future__ import annotations

import os
import threading
import time
from uuid import UUID

_COUNTER_BITS = 42
_lock = threading.Lock()
_last_millisecond = 0
_counter = 0


def uuid7() -> UUID:
    """Return a new id; ids of one process sort in the order they were made."""
    global _last_millisecond, _counter
    random = int.from_bytes(os.urandom(9), "big")
    with _lock:
        millisecond = time.time_ns() // 1_000_000
        if millisecond > _last_millisecond:
            _last_millisecond = millisecond
            # One spare bit at the top leaves room to count upwards.
            _counter = (random >> 32) & ((1 << (_COUNTER_BITS - 1)) - 1)
        else:
            _counter += 1
            if _counter >> _COUNTER_BITS:
                _last_millisecond += 1
                _counter = 0
        millisecond, counter = _last_millisecond, _counter
    high, low = counter >> 30, counter & 0x3FFF_FFFF
    return UUID(
        int=(millisecond & 0xFFFF_FFFF_FFFF) << 80
        | 0x7 << 76
        | high << 64
        | 0b10 << 62
        | low << 32
        | random & 0xFFFF_FFFF
    )


def canonical(value: object) -> str | None:
    """Return an id in its form of 36 characters, None for what is no id."""
    try:
        return str(value if isinstance(value, UUID) else UUID(str(value)))
    except ValueError:
        return None


def _after_fork() -> None:
    """Start a new lock and counter: a forked child must not repeat its parent's ids."""
    global _lock, _last_millisecond, _counter
    _lock = threading.Lock()
    _last_millisecond = _counter = 0


os.register_at_fork(after_in_child=_after_fork)
