"""What a run asks of its database, whatever it is."""

from __future__ import annotations

import os
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple


class Address(NamedTuple):
    """Where a server listens."""

    host: str
    port: int


class Server(ABC):
    """A database of the run's own, on a server that may be the run's own too."""

    #: The name of its kind for ``--database``, and in the report.
    kind: str
    #: May it be stopped, killed and filled up?
    is_ours = False
    #: Is it reached over a network? If so, a proxy can be between.
    has_network = True
    #: How many producers a run has, unless it is told.
    producers = 3
    #: What ends it as a crash does, and what ends it without waiting for clients.
    crash_signal: int
    stop_signal: int

    @abstractmethod
    def start(self) -> None:
        """Start what is to be started and make the database of the run."""

    @abstractmethod
    def stop(self) -> None:
        """Remove the database of the run; what was started ends with the run."""

    @property
    @abstractmethod
    def addresses(self) -> list[Address]:
        """Where its nodes listen."""

    @abstractmethod
    def settings(self, addresses: Sequence[Address]) -> dict[str, Any]:
        """Return what stands in DATABASES for who reaches it at these addresses."""

    def is_write_locked(self) -> bool:
        """Can nobody write, as long as some client does not end its transaction?"""
        return False

    @property
    def primary(self) -> Address:
        """Where the node listens that may be written to."""
        return self.addresses[0]

    @property
    def small_folder(self) -> Path | None:
        """Where its files are, if that is a small file system of their own."""
        return None

    def halt(self, number: int) -> None:
        """End the server by a signal, if it is ours."""
        raise NotImplementedError

    def resume(self) -> None:
        """Start it again, and wait until it answers."""
        raise NotImplementedError

    def sessions(self) -> list[str]:
        """Return the sessions of clients other than the caller, in words."""
        return []

    def end_sessions(self, most: int) -> list[int]:
        """Have the server cut so many sessions; return the ports of their clients."""
        return []

    def client_ports(self) -> list[int]:
        """Return the ports of the clients that have sessions, but the caller's."""
        return []


def mount_small(folder: Path, size: int) -> bool:
    """Mount a small file system on a folder; False where that is not allowed."""
    folder.mkdir(exist_ok=True)
    if os.geteuid() != 0:
        return False
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "chaos", folder]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0
