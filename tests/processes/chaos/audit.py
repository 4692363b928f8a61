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

from tests.processes.chaos.guard import start_of

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
    born: str  #: when the process started: in a namespace numbers come again
    time: float  #: monotonic


class ProducedLine(NamedTuple):
    """A producer is about to do something with a key, has done it, or failed.

    It enqueues it (try; ack, fail, undo), revokes it (revoking; revoked), or puts it
    back to work (requeueing; requeued).
    """

    event: str
    key: str
    kind: str  #: the way it is enqueued; what was answered to another request
    due: float  #: monotonic time of the earliest start
    time: float  #: monotonic
    error: str
    task: str  #: its name
    by: str  #: the producer


def note_run(event: str, key: str, lease: int, attempt: int) -> None:
    """Tell of a run of the task that this process runs."""
    path, host, pid = os.environ["CHAOS_RUNS"], os.environ["CHAOS_HOST"], os.getpid()
    now, born = time.monotonic(), start_of(pid)
    write_line(path, event, key, lease, attempt, host, pid, born, now)


def read_runs(path: Path) -> Iterator[RunLine]:
    for event, key, lease, attempt, host, pid, born, at in _rows(path):
        yield RunLine(
            *(event, key, int(lease), int(attempt)), host, int(pid), born, float(at)
        )


def read_produced(path: Path) -> Iterator[ProducedLine]:
    for event, key, kind, due, at, *words in _rows(path):
        yield ProducedLine(event, key, kind, float(due), float(at), *words)


def _rows(path: Path) -> Iterator[list[str]]:
    if path.exists():
        with path.open() as lines:
            for line in lines:
                yield line.split()
