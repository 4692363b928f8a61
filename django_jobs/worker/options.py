"""What a worker is told at its start; the defaults fit the machine."""

from __future__ import annotations

import logging
import os
import socket
from dataclasses import dataclass, field
from typing import Any

from django.db import Error, connections

from django_jobs import __version__
from django_jobs.conf import conf
from django_jobs.options import NAME_LENGTH, QUEUE_LENGTH, did_you_mean
from django_jobs.texts import shorten


def usable_cores() -> int:
    """Return how many cores this process may use (affinity, not the machine's)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOptions:
    """Options of ``jobworker``; times in seconds, memory in bytes."""

    database: str
    #: In the order to serve them; empty means all.
    queues: tuple[str, ...] = ()
    #: One weight per queue; empty means strict order.
    weights: tuple[int, ...] = ()
    exclude: tuple[str, ...] = ()
    processes: int = field(default_factory=usable_cores)
    #: Sync tasks that one process runs at a time.
    threads: int = 1
    #: ``async def`` tasks that one process runs at a time.
    coroutines: int = 100
    is_burst: bool = False
    #: Stop after so many tasks.
    max_tasks: int | None = None
    #: Replace a process after so many tasks, or when it is larger than this.
    recycle_after: int | None = None
    max_memory: int | None = None
    shutdown_timeout: float = 25.0
    log_format: str = "text"
    #: Level of the line per task; failures are logged in any case.
    log_level: int = logging.WARNING
    name: str = field(default_factory=socket.gethostname)

    def describe_queues(self) -> str:
        """Return the queues as the command line takes them."""
        if self.weights:
            pairs = zip(self.queues, self.weights, strict=True)
            return ",".join(f"{queue}:{weight}" for queue, weight in pairs)
        words = ",".join(self.queues) or "all"
        return f"{words} except {','.join(self.exclude)}" if self.exclude else words

    def undeclared(self) -> str:
        """Return a warning of queues to which the settings let nobody enqueue.

        It is no error: what is left in a queue that was given up may be worked off.
        """
        declared = conf().QUEUES
        unknown = [each for each in self.queues + self.exclude if each not in declared]
        if not declared or not unknown:
            return ""
        hint = did_you_mean(unknown[0], declared)
        names = ", ".join(map(repr, unknown))
        return f"DJANGO_JOBS['QUEUES'] does not have {names}.{hint}"

    def introduction(self, database_kind: str) -> dict[str, Any]:
        """Return what the banner tells, as fields of a log record."""
        return {
            "version": __version__,
            "database": self.database,
            "database_kind": database_kind,
            "queues": self.describe_queues(),
            "concurrency": {
                "processes": self.processes,
                "threads": self.threads,
                "coroutines": self.coroutines,
            },
            "pid": os.getpid(),
        }


def kind_of(alias: str) -> str:
    """Return the name of the database's kind; without its server, MariaDB is mysql.

    MariaDB is asked what it is.
    """
    try:
        return connections[alias].display_name
    except Error:
        return connections[alias].vendor


def serves(described: str, queue: str) -> bool:
    """Tell whether a worker whose queues are described so takes tasks of a queue.

    What is not understood, as of a later version, is taken for a yes.
    """
    words, _, excluded = described.partition(" except ")
    try:
        names, _ = parse_queues("" if words == "all" else words)
    except ValueError:
        return True
    return queue in names if names else queue not in excluded.split(",")


def parse_queues(text: str) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Read ``a,b`` (strict order) or ``a:6,b:3`` (weighted); ValueError says why not.

    Returns the names and the weights; no weights means strict order.
    """
    names, weights = [], []
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, colon, weight = (piece.strip() for piece in part.rpartition(":"))
        names.append(name if colon else part)
        if colon:
            weights.append(_weight(part, weight))
    if text.strip() and not names:
        raise ValueError(f"no queue is named: {text!r}")
    if weights and len(weights) != len(names):
        raise ValueError(f"give every queue a weight or none: {text!r}")
    if len(set(names)) != len(names) or not all(names):
        raise ValueError(f"every queue needs a name, and only once: {text!r}")
    for name in names:
        _refuse_unprintable("a queue", name, QUEUE_LENGTH)
    return tuple(names), tuple(weights)


def check_name(name: str) -> str:
    """Return the name of a worker; ValueError when it cannot be shown or stored."""
    return _refuse_unprintable("a worker", name, NAME_LENGTH)


def _refuse_unprintable(what: str, name: str, length: int) -> str:
    # Bytes of the command line that are no text are surrogates here: no terminal and
    # no database takes them.
    if not name.isprintable() or len(name) > length:
        shown = shorten(repr(name), 60)
        raise ValueError(
            f"the name of {what} is 1 to {length} printable characters, not {shown}"
        )
    return name


def _weight(part: str, weight: str) -> int:
    is_number = weight.isdecimal() and len(weight) <= len("1000")
    if not is_number or not 1 <= int(weight) <= 1000:
        raise ValueError(f"a weight is a whole number from 1 to 1000: {part!r}")
    return int(weight)
