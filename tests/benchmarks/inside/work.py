"""What the tasks of every peer do: the same plain functions, counted the same way."""

import os
import signal
import time

from tests.benchmarks.inside.given import GIVEN

#: What no PostgreSQL text may contain, and what no UTF-8 may.
POISONS = {"NUL": "before \x00 after", "surrogate": "before \ud800 after"}


def note(event: str, key: str) -> None:
    """Append a line in one write: lines of several processes do not mix."""
    line = f"{event} {key} {os.getpid()} {os.getsid(0)} {time.monotonic():.6f}\n"
    file = os.open(GIVEN["audit"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)


def work(key: str, seconds: float = 0.0) -> None:
    note("start", key)
    if seconds:
        time.sleep(seconds)
    note("end", key)


def die(key: str) -> None:
    note("start", key)
    os.kill(os.getpid(), signal.SIGKILL)


def fail(key: str, poison: str) -> None:
    note("start", key)
    raise ValueError(POISONS[poison])
