"""What a project opens while it loads: no child may share it with another process.

Connections of the main thread are closed. Those of a thread cannot be closed under it
(with SQLite that ends the process), and of those made past Django nobody knows more
than the descriptor. So the children find that all of these were closed by the other
end, as after a restart of the server: whatever uses one opens another. A file that is
a database is only told of, and so are the threads, which no child has.
"""

from __future__ import annotations

import logging
import os
import socket
import stat
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from django_jobs import events

logger = logging.getLogger("django_jobs")

#: Also where there is no /proc.
_DESCRIPTORS = "/dev/fd"
#: What this process had open before it loaded the project.
_own: set[int] = set()
_HINT = (
    "children cannot use these: connect, and start threads, at the first use and not "
    "while the project loads"
)


def note_own() -> None:
    """Take note of what is open before anything of the project is loaded."""
    _own.update(_descriptors())


def close_connections() -> None:
    """Close those of the main thread, and the pools, which are of all threads."""
    # Late: this needs the settings.
    from django.db import connections

    backends: list[Any] = list(connections.all())
    for connection in backends:
        connection.close()
        if hasattr(connection, "close_pool"):
            connection.close_pool()


def find() -> dict[str, list[str]]:
    """Return, in words, what the project has left open and which threads run."""
    others = set(threading.enumerate()) - {threading.main_thread()}
    return {
        "threads": sorted(thread.name for thread in others),
        "connections": [*_streams().values(), *_database_files()],
    }


class Notice:
    """Says in the worker what its children have told of that, and once."""

    def __init__(self) -> None:
        self._said: dict[str, list[str]] = {}

    def say(self, found: dict[str, list[str]] | None = None) -> None:
        if not found or found == self._said:
            return
        self._said = found
        if any(found.values()):
            # Threads alone may know that they are forked, as those of exporters do.
            level = logging.WARNING if found["connections"] else logging.INFO
            told: dict[str, Any] = {**found, "hint": _HINT}
            events.log(logger, level, "opened_too_early", **told)


def cut() -> None:
    """In a child: have every such connection be one that the other end has closed."""
    ours, theirs = socket.socketpair()
    theirs.close()
    with ours:
        for descriptor in _streams():
            # Not closed: another file would get its number, and who thinks that it is
            # still his would write into that.
            os.dup2(ours.fileno(), descriptor, inheritable=False)


def _descriptors() -> Iterator[int]:
    """Yield what is open, without the folder that is read to know it."""
    with suppress(OSError):
        for each in map(int, os.listdir(_DESCRIPTORS)):
            with suppress(OSError):
                os.fstat(each)
                yield each


def _streams() -> dict[int, str]:
    """Return the connected sockets of the project by descriptor: their other end."""
    peers = {each: _peer(each) for each in _descriptors() if each not in _own}
    return {descriptor: peer for descriptor, peer in peers.items() if peer}


def _peer(descriptor: int) -> str:
    """Return the other end of a stream; empty when it is none, or has no name.

    Datagrams of several processes do not mix, and what has no name is a pair of this
    process's own.
    """
    with suppress(OSError):
        if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            with socket.socket(fileno=os.dup(descriptor)) as probe:
                if probe.type == socket.SOCK_STREAM:
                    return _words(probe.getpeername())
    return ""


def _words(address: Any) -> str:
    if isinstance(address, tuple):
        return ":".join(map(str, address[:2]))
    return os.fsdecode(address)


def _database_files() -> list[str]:
    from django.db import connections

    names = {str(connections[alias].settings_dict["NAME"]) for alias in connections}
    opened = set()
    for each in _descriptors():
        with suppress(OSError):
            opened.add(os.readlink(f"{_DESCRIPTORS}/{each}"))
    return sorted(names & opened)
