"""Lines in files that several processes append to.

One ``os.write`` per line: it is there even if the process dies in the next moment, and
the lines of several processes do not mix.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

#: Names of the files of a run.
RUNS = "runs.txt"
PRODUCED = "produced.txt"


def write_line(path: str | Path, *words: object) -> None:
    line = " ".join(map(str, words))
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, f"{line}\n".encode())
    finally:
        os.close(descriptor)


class RunLine(NamedTuple):
    """A task began or ended, in a process of a host."""

    event: str  #: start, end, raise
    key: str
    lease: int
    attempt: int
    host: str
    pid: int
    time: float  #: monotonic


class ProducedLine(NamedTuple):
    """A producer is about to enqueue a key (try), has done it (ack), or failed."""

    event: str  #: try, ack, fail, undo
    key: str
    kind: str
    due: float  #: monotonic time of the earliest start
    time: float  #: monotonic
    error: str


def note_run(event: str, key: str, lease: int, attempt: int) -> None:
    """Tell of a run of the task that this process runs."""
    path, host = os.environ["CHAOS_RUNS"], os.environ["CHAOS_HOST"]
    write_line(path, event, key, lease, attempt, host, os.getpid(), time.monotonic())


def read_runs(path: Path) -> Iterator[RunLine]:
    for event, key, lease, attempt, host, pid, at in _rows(path):
        yield RunLine(event, key, int(lease), int(attempt), host, int(pid), float(at))


def read_produced(path: Path) -> Iterator[ProducedLine]:
    for event, key, kind, due, at, error in _rows(path):
        yield ProducedLine(event, key, kind, float(due), float(at), error)


def _rows(path: Path) -> Iterator[list[str]]:
    if path.exists():
        with path.open() as lines:
            for line in lines:
                yield line.split()
