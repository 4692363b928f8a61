"""The hosts of a run: each has a worker, which is started again when it is gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from math import inf
from pathlib import Path
from typing import ClassVar

from tests.processes.chaos import audit
from tests.processes.chaos.guard import start_of
from tests.processes.chaos.nursery import Nursery
from tests.processes.proc import descendants, is_alive

#: Seconds before a worker that is gone is started again, as systemd would.
RESTART = 1.0
STARTED = "event=worker_started"
#: Runs a command in a process namespace of its own.
ISOLATING = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]


#: The number of a process in its own namespace, and when it started.
Identity = tuple[int, str]
#: The same with the name of its host.
Process = tuple[str, int, str]


@dataclass(frozen=True, slots=True)
class Death:
    """A process that runs tasks was killed by us, or with its parent."""

    host: str
    pid: int  #: as the process itself knows it
    born: str  #: when it started, as the kernel counts
    time: float  #: monotonic
    #: Is it that of a worker, with all of its children?
    is_whole: bool = False

    @property
    def process(self) -> Process:
        return self.host, self.pid, self.born


@dataclass(frozen=True, slots=True)
class Killing:
    """One child was killed, and it had neighbours in the same worker."""

    host: str
    neighbours: list[Identity]
    time: float


@dataclass
class Program:
    """A process that is started again when it is gone: a worker or a producer."""

    #: How it may end when it is told to: a producer that is just being started again
    #: does not handle the signal yet.
    good_ends: ClassVar[tuple[int, ...]] = (0, -signal.SIGTERM)

    nursery: Nursery
    name: str
    command: Sequence[str | Path]
    env: dict[str, str]
    generation: int = 0
    process: subprocess.Popen[bytes] | None = None
    #: Do we know why it is gone?
    is_expected: bool = False
    #: It ended by itself: what it did last, in words.
    accidents: list[str] = field(default_factory=list)
    #: How long it stays away when it is gone, and when to start it again, monotonic.
    rest: float = RESTART
    due: float = 0.0
    #: Nobody looks after it: not started yet, or stopped.
    is_closed: bool = True

    @property
    def log(self) -> Path:
        return self.nursery.folder / f"{self.name}-{self.generation}.log"

    @property
    def logs(self) -> list[Path]:
        folder = self.nursery.folder
        return sorted(folder.glob(f"{self.name}-[0-9]*.log"))

    def start(self) -> None:
        self.generation += 1
        self.is_expected = self.is_closed = False
        command = [
            str(word).format(generation=self.generation) for word in self.command
        ]
        self.process = self.nursery.start(command, log=self.log, env=self.env)

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def is_up(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def look_after(self, now: float) -> None:
        """Start it again some time after it is gone."""
        if self.is_closed or self.is_up:
            return
        if self.process is not None:
            self._note_end()
            self.process, self.due = None, now + self.rest
            self.rest = RESTART
        if now >= self.due:
            self.start()

    def _note_end(self) -> None:
        assert self.process is not None
        if not self.is_expected:
            code = self.process.returncode
            tail = self.log.read_text(errors="replace")[-2000:]
            self.accidents.append(f"{self.name} ended with {code}: {tail}")

    def send(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.is_expected = True
        self.send(signal.SIGKILL)

    def close(self, timeout: float) -> str:
        """Ask for a graceful stop; return what was wrong with it."""
        self.is_closed = True
        if self.process is None:
            return ""
        self.send(signal.SIGTERM)
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.send(signal.SIGUSR1)
            return f"{self.name} did not stop within {timeout:g} s: see its log"
        if code not in self.good_ends and not self.is_expected:
            return f"{self.name} stopped with status {code}"
        return ""


@dataclass
class Host(Program):
    """A worker, and what runs below it."""

    good_ends: ClassVar[tuple[int, ...]] = (0,)
    #: From when to when it was gone: killed, and not ready again.
    downs: list[tuple[float, float]] = field(default_factory=list)
    #: The generation that was killed last.
    _killed: int = 0

    def look_after(self, now: float) -> None:
        super().look_after(now)
        is_down = bool(self.downs) and self.downs[-1][1] == inf
        # The log that told of its start may be that of the one before.
        if is_down and self.generation > self._killed and self.is_ready:
            self.downs[-1] = self.downs[-1][0], now

    def _note_down(self) -> None:
        self.is_expected = True
        self._killed = self.generation
        if not self.downs or self.downs[-1][1] < inf:
            self.downs.append((time.monotonic(), inf))

    @property
    def worker(self) -> int:
        """The process of the worker; it may have one above that isolates it."""
        below = descendants(self.pid) if self.is_isolated else []
        return below[0] if below else self.pid

    @property
    def is_isolated(self) -> bool:
        return self.command[0] == ISOLATING[0]

    @property
    def is_ready(self) -> bool:
        return self.is_up and STARTED in self.log.read_text(errors="replace")

    def children(self) -> list[int]:
        """Return the processes that run tasks: each leads a group of its own."""
        return [pid for pid in descendants(self.worker) if _is_leader(pid)]

    def send(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.worker, number)

    def kill(self) -> list[Death]:  # type: ignore[override]
        """Kill the worker alone; its children are to die with it."""
        deaths = self.deaths_of_all()
        self._note_down()
        super().kill()
        return deaths

    def kill_all(self) -> list[Death]:
        """Kill the worker, what it forks from, and its children, all at once."""
        deaths = self.deaths_of_all()
        self._note_down()
        for pid in [*descendants(self.pid), self.pid]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return deaths

    def kill_child(self, pid: int) -> list[Death]:
        deaths = self.deaths_of([pid])
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        return deaths

    def deaths_of_all(self) -> list[Death]:
        """Return the deaths of a worker and of its children."""
        whole = [replace(each, is_whole=True) for each in self.deaths_of([self.worker])]
        return whole + self.deaths_of(self.children())

    def deaths_of(self, pids: Iterable[int]) -> list[Death]:
        now = time.monotonic()
        return [Death(self.name, *identity(pid), now) for pid in pids if start_of(pid)]


def worker_command(name: str, *options: str) -> list[str]:
    return [
        *(
            sys.executable,
            "-m",
            "django",
            "jobworker",
            "--name",
            name + "-{generation}",
        ),
        *options,
    ]


def isolated(command: Sequence[str]) -> list[str]:
    """Return a command in a process namespace of its own, as in a container.

    To the others it is on another host: they do not see its processes.
    """
    return [*ISOLATING, *command]


def can_isolate() -> bool:
    with suppress(OSError):
        done = subprocess.run(isolated(["true"]), capture_output=True, check=False)
        return done.returncode == 0
    return False


def own_number(pid: int) -> int:
    """Return the number of a process in its own namespace; 0 when it is gone."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("NSpid:"):
                return int(line.split()[-1])
    return 0


def identity(pid: int) -> Identity:
    return own_number(pid), start_of(pid)


def _is_leader(pid: int) -> bool:
    with suppress(ProcessLookupError):
        return os.getpgid(pid) == pid and is_alive(pid)
    return False


def env_of(folder: Path, host: str) -> dict[str, str]:
    """Return what a process of the site needs to tell what it does."""
    return {
        "CHAOS_HOST": host,
        "CHAOS_RUNS": str(folder / audit.RUNS),
        "CHAOS_PRODUCED": str(folder / audit.PRODUCED),
        "DJANGO_SETTINGS_MODULE": "tests.processes.chaos.settings",
    }
