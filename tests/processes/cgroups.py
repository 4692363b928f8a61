"""A control group for a worker: what the kernel does when something runs out in it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
#: Controller -> (folder, files of the limit), by the version of control groups.
_LIMITS = {
    1: {
        "memory": ("memory", ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"]),
        "pids": ("pids", ["pids.max"]),
    },
    2: {
        "memory": ("", ["memory.max"]),
        "pids": ("", ["pids.max"]),
    },
}


class CannotConfine(Exception):
    """There are no control groups here, or we may not make one."""


class Cgroup:
    """A group of processes with a limit of ``memory`` (bytes) or ``pids``."""

    def __init__(self, controller: str, limit: int) -> None:
        version = 2 if (ROOT / "cgroup.controllers").exists() else 1
        folder, files = _LIMITS[version][controller]
        self.path = ROOT / folder / f"django_jobs_test_{os.getpid()}_{controller}"
        try:
            self.path.mkdir()
            self._file = self.path / files[0]
            self.limit(limit)
        except OSError as error:
            self.remove()
            raise CannotConfine(f"no control group for {controller}: {error}") from None
        for file in files[1:]:
            with suppress(OSError):  # swap is not accounted for everywhere
                (self.path / file).write_text(str(limit))

    def limit(self, limit: int) -> None:
        """Change the limit, also to less than what there is now."""
        self._file.write_text(str(limit))

    def add(self, pids: Iterable[int]) -> None:
        for pid in pids:
            (self.path / "cgroup.procs").write_text(str(pid))

    def pids(self) -> list[int]:
        return list(map(int, (self.path / "cgroup.procs").read_text().split()))

    def remove(self) -> None:
        """Kill what is left in the group, and remove it."""
        deadline = time.monotonic() + 10
        while self.path.exists() and time.monotonic() < deadline:
            with suppress(OSError):
                for pid in self.pids():
                    os.kill(pid, signal.SIGKILL)
            with suppress(OSError):
                self.path.rmdir()
            time.sleep(0.01)
