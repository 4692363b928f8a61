"""A file: no server, one machine, one writer at a time."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from tests.processes.chaos.nursery import Nursery
from tests.processes.chaos.servers.base import Address, Server, mount_small

#: Bytes of the file system that the file is on, where we may mount one.
ROOM = 256 * 1024 * 1024
#: Seconds for which nobody but who stands still has the lock of the file.
LOCKED = 2.0


class SQLite(Server):
    """The file is in the folder of the run."""

    kind = "sqlite"
    is_ours = True
    has_network = False
    producers = 8

    def __init__(self, nursery: Nursery) -> None:
        self.folder = nursery.folder / "sqlite"
        self.is_small = mount_small(self.folder, ROOM)
        self.path = self.folder / "queue.sqlite3"

    def start(self) -> None:
        """Nothing to do: the first connection makes the file."""

    def stop(self) -> None:
        """Nothing to do: the folder is removed."""

    @property
    def small_folder(self) -> Path | None:
        return self.folder if self.is_small else None

    @property
    def addresses(self) -> list[Address]:
        return []

    def is_write_locked(self) -> bool:
        connection = sqlite3.connect(self.path, timeout=LOCKED, isolation_level=None)
        with closing(connection):
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                return "locked" in str(error)
            connection.execute("ROLLBACK")
            return False

    def settings(self, addresses: Sequence[Address]) -> dict[str, Any]:
        return {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": str(self.path),
            "OPTIONS": {
                "timeout": 20,
                "transaction_mode": "IMMEDIATE",
                "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL",
            },
        }
