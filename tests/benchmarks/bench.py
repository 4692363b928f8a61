"""One peer on empty ground: workers, a producer, and what the tasks noted."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

from tests.benchmarks.counting import Count, Notes, count
from tests.benchmarks.environments import ROOT, Environment
from tests.benchmarks.peers.base import GRACE, LEASE, Peer
from tests.benchmarks.processes import Supervised, send
from tests.benchmarks.producer import Producer
from tests.benchmarks.servers import Server

Answer = TypeVar("Answer")

#: How long a scenario waits for what is not done yet, and for the next tasks. Celery
#: looks for messages that were not acknowledged once in 100 s, at any setting.
PATIENCE = 130.0
NEXT_SECONDS = 40.0
#: How long the queue must say that nothing is left before it is believed.
EMPTY_SECONDS = 4.0
#: How long it is waited for a run too many after all tasks are done.
QUIET_SECONDS = 20.0


class Bench:
    """One peer, ready for one scenario."""

    def __init__(
        self,
        peer: Peer,
        environment: Environment,
        folder: Path,
        *,
        server: Server | None = None,
        databases: dict[str, Any] | None = None,
        redis: str = "",
        processes: int = 2,
        schedules: Sequence[str] = (),
    ) -> None:
        self.peer, self.environment, self.folder = peer, environment, folder
        self.server, self.processes = server, processes
        self.folder.mkdir(parents=True)
        self.audit, self.log = folder / "audit", folder / "log"
        places = {"{redis}": redis, "{processes}": processes}
        self._filled: Callable[[Any], Any] = lambda value: fill(value, places)
        given = {
            "module": peer.module,
            "databases": {"default": databases} if databases else {},
            "settings": self._filled(peer.settings),
            "redis": redis,
            "audit": str(self.audit),
            "lease": LEASE,
            "processes": processes,
            "schedules": list(schedules),
        }
        self.env = {
            **os.environ,
            **peer.environment,
            "BENCHMARK": json.dumps(given),
            "DJANGO_SETTINGS_MODULE": "tests.benchmarks.inside.settings",
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
        }
        self._stack = ExitStack()
        self._producer: Producer | None = None
        self._numbers = 0

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    # -- processes

    def migrate(self) -> None:
        command = self._command(["python", "-m", "django", "migrate", "--verbosity=0"])
        with self.log.open("ab") as log:
            code = subprocess.call(
                command, env=self.env, cwd=self.folder, stderr=log, stdout=log
            )
        if code:
            raise RuntimeError(f"{command}: {self.log.read_text()[-2000:]}")

    def start_worker(self, processes: int | None = None) -> Worker:
        return self.start(self.peer.commands(processes or self.processes))

    def start_scheduler(self) -> Worker | None:
        return self.start([self.peer.scheduler]) if self.peer.scheduler else None

    def start(self, commands: Sequence[Sequence[str]]) -> Worker:
        worker = Worker(
            [
                Supervised(self._command(each), self.env, self.folder, self.log)
                for each in commands
            ]
        )
        self._stack.callback(worker.end)
        return worker

    def new_producer(self) -> Producer:
        """Start a further process that enqueues."""
        command = self._command(["python", "-m", "tests.benchmarks.inside"])
        return self._stack.enter_context(
            Producer(command, self.env, self.folder, self.log)
        )

    def _command(self, command: Sequence[str]) -> list[str]:
        program, *options = (self._filled(each) for each in command)
        return [self.environment.program(program), *options]

    # -- tasks

    @property
    def producer(self) -> Producer:
        if self._producer is None:
            self._producer = self.new_producer()
        return self._producer

    def keys(self, number: int) -> list[str]:
        """Return so many keys that were never used before."""
        self._numbers += number
        return [f"k{each}" for each in range(self._numbers - number, self._numbers)]

    def enqueue(self, number: int, *args: Any, task: str = "work") -> list[str]:
        """Enqueue so many tasks one by one; return the keys that were accepted."""
        calls = [[key, *args] for key in self.keys(number)]
        accepted: list[str] = self.producer.call("enqueue", task, calls)["accepted"]
        return accepted

    def unfinished(self) -> int | None:
        """Return what the queue says is not done; None when it does not answer."""
        try:
            number: int = self.producer.call("unfinished")
        except RuntimeError:
            return None
        return number

    def notes(self) -> Notes:
        return Notes.read(self.audit)

    def warm_up(self) -> list[int]:
        """Wait until the workers work; return the processes that ran tasks."""
        keys = self.enqueue(3 * self.processes, 0.3)
        self.wait_for(keys, 60)
        missing = set(keys) - self.notes().finished(keys)
        if missing:
            raise TimeoutError(f"no work was done: {self.log.read_text()[-3000:]}")
        return list(dict.fromkeys(note.pid for note in self.notes().starts(keys)))

    # -- waiting

    def wait_until(self, question: Callable[[], Answer], seconds: float) -> Answer:
        """Return the first answer that is not None, or the last one."""
        deadline = time.monotonic() + seconds
        while (answer := question()) is None and time.monotonic() < deadline:
            time.sleep(0.05)
        return answer

    def wait_for(self, keys: Collection[str], seconds: float = PATIENCE) -> float:
        """Wait until all have ended, or the queue has nothing left; return how long."""
        start = time.monotonic()
        patience = Patience(self)
        self.wait_until(
            lambda: (
                (len(self.notes().finished(keys)) == len(keys))
                or patience.is_over()
                or None
            ),
            seconds,
        )
        return time.monotonic() - start

    def count(self, keys: Collection[str], seconds: float = PATIENCE) -> Count:
        """Wait for the tasks, and for runs too many, and count."""
        waited = self.wait_for(keys, seconds)
        self.wait_until(lambda: self.unfinished() == 0 or None, QUIET_SECONDS)
        return count(self.notes(), keys, self.unfinished(), waited)

    def next_tasks(self, number: int = 3) -> tuple[int, float]:
        """Enqueue the next tasks; return how many of them ran, and in what time."""
        keys = self.enqueue(number)
        waited = self.wait_for(keys, NEXT_SECONDS)
        return len(self.notes().finished(keys)), waited


class Patience:
    """Ends early when the queue itself says, for some time, that nothing is left."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._asked_at = 0.0
        self._empty_since: float | None = None

    def is_over(self) -> bool:
        now = time.monotonic()
        if now - self._asked_at > 0.5:
            self._asked_at = now
            if self._bench.unfinished() != 0:
                self._empty_since = None
            elif self._empty_since is None:
                self._empty_since = now
        return self._empty_since is not None and now - self._empty_since > EMPTY_SECONDS


class Worker:
    """The commands that together are the worker of a peer."""

    def __init__(self, commands: list[Supervised]) -> None:
        self.commands = commands

    @property
    def exits(self) -> int:
        return sum(each.exits for each in self.commands)

    @property
    def sessions(self) -> set[int]:
        return {session for each in self.commands for session in each.sessions}

    def pids(self) -> list[int]:
        return [pid for each in self.commands for pid in each.pids()]

    def signal(self, number: int) -> None:
        send(number, self.pids())

    def kill(self) -> None:
        """Kill all of it at once; the process supervisor starts it again."""
        for each in self.commands:
            each.kill()

    def terminate(self, grace: float = GRACE) -> tuple[float, bool]:
        """Stop it as a deploy does; return the seconds, and whether it was killed."""
        start = time.monotonic()
        for each in self.commands:
            each.terminate()
        while not all(each.has_ended() for each in self.commands):
            if time.monotonic() - start > grace:
                self.end()
                return grace, True
            time.sleep(0.02)
        return time.monotonic() - start, False

    def end(self) -> None:
        for each in self.commands:
            each.end()


def fill(value: Any, places: dict[str, Any]) -> Any:
    """Return the same with the places in it filled."""
    if isinstance(value, dict):
        return {key: fill(each, places) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [fill(each, places) for each in value]
    return places.get(value, value) if isinstance(value, str) else value
