"""Wall clocks of hosts that can be put forward and back while processes run."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

from tests.processes.chaos.nursery import Nursery

SOURCE = Path(__file__).with_name("clock.c")


class Clocks:
    """A clock per host; ``env`` makes the processes of a host read it."""

    def __init__(self, nursery: Nursery) -> None:
        self.folder = nursery.make_folder("clocks")
        self.library = self.folder / "clock.so"
        compiler = shutil.which("cc") or shutil.which("gcc")
        self.can_move = compiler is not None
        if compiler is not None:
            words = ["-shared", "-fPIC", "-O2", "-o", self.library, SOURCE]
            nursery.run([compiler, *words])

    def env(self, host: str) -> dict[str, str]:
        if not self.can_move:
            return {}
        self.set(host, 0)
        return {"LD_PRELOAD": str(self.library), "CHAOS_CLOCK": str(self._path(host))}

    def set(self, host: str, seconds: int) -> None:
        """Put the clock of a host forward, or back, from the true time."""
        path = self._path(host)
        # Written in place: the processes have mapped the file.
        with path.open("r+b" if path.exists() else "wb") as file:
            file.write(struct.pack("=q", seconds))

    def _path(self, host: str) -> Path:
        return self.folder / host
