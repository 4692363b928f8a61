"""Commands that a process supervisor keeps running, and everything below them."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

#: What a process supervisor waits before it starts a command that ended again.
RESTART_SECONDS = 1.0


def session_of(session: int) -> list[int]:
    """Return the living processes of a session, its leader first."""
    pids = [int(each.name) for each in Path("/proc").iterdir() if each.name.isdigit()]
    found = [pid for pid in pids if _belongs(_stat(pid), session)]
    return sorted(found, key=lambda pid: (pid != session, pid))


def _belongs(stat: list[str], session: int) -> bool:
    return bool(stat) and stat[3] == str(session) and stat[0] not in "ZX"


def is_alive(pid: int) -> bool:
    stat = _stat(pid)
    return bool(stat) and stat[0] not in "ZX"


def _stat(pid: int) -> list[str]:
    """Return state, parent, group, session ... of a process, empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def cpu_seconds(pids: Sequence[int]) -> float:
    """Return the time that processes, and their children that ended, computed for."""
    ticks = sum(int(each) for pid in pids for each in _stat(pid)[11:15])
    return ticks / os.sysconf("SC_CLK_TCK")


def send(number: int, pids: Sequence[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


class Supervised:
    """One command in a session of its own, started again whenever it ends by itself."""

    def __init__(
        self, command: Sequence[str], env: dict[str, str], folder: Path, log: Path
    ) -> None:
        self.command, self.env, self.folder, self.log = command, env, folder, log
        #: How often it ended though nobody had asked for that.
        self.exits = 0
        self.sessions: list[int] = []
        self._stopping = threading.Event()
        self._is_killed = False
        self._process = self._start()
        self._keeper = threading.Thread(target=self._keep_running, daemon=True)
        self._keeper.start()

    def pids(self) -> list[int]:
        return [pid for session in self.sessions for pid in session_of(session)]

    def kill(self) -> None:
        """Kill everything at once; it is started again."""
        self._is_killed = True
        send(signal.SIGKILL, self.pids())

    def terminate(self) -> None:
        """Ask the command to end, once, as a container runtime asks its first process.

        It is not started again.
        """
        self._stopping.set()
        send(signal.SIGTERM, [self._process.pid])

    def has_ended(self) -> bool:
        return self._process.poll() is not None and not self.pids()

    def end(self) -> None:
        """Leave nothing of it behind."""
        self._stopping.set()
        deadline = time.monotonic() + 10
        while self.pids() and time.monotonic() < deadline:
            send(signal.SIGKILL, self.pids())
            time.sleep(0.02)
        self._keeper.join(10)

    def _start(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                self.command,
                env=self.env,
                cwd=self.folder,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        self.sessions.append(process.pid)
        return process

    def _keep_running(self) -> None:
        while True:
            self._process.wait()
            if self._stopping.is_set():
                return
            self.exits += not self._is_killed
            self._is_killed = False
            send(signal.SIGKILL, session_of(self._process.pid))  # what it left behind
            if self._stopping.wait(RESTART_SECONDS):
                return
            self._process = self._start()
