"""Starts workers as processes of their own and waits for events with a deadline."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from django.db import DatabaseError, connections

from django_jobs.models import DeadLetter, Result, Task, Worker
from tests.processes.proc import descendants, is_alive  # noqa: F401 - for tests

Answer = TypeVar("Answer")
PATIENCE = 20.0
#: By how much a time that is promised may grow on a machine that others use as well.
MOST_TAKEN = 3.0


def wait_for(
    what: Callable[[], Answer], timeout: float = PATIENCE, words: str = ""
) -> Answer:
    """Return the first true answer; AssertionError when the deadline passes."""
    deadline = time.monotonic() + timeout
    while True:
        answer = what()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(
                f"not within {timeout} s: {words or what}; {_census_if_any()}, "
                f"last answer {answer!r}"
            )
        time.sleep(0.01)


def seconds_until(what: Callable[[], object], timeout: float = 60.0) -> float:
    begin = time.monotonic()
    wait_for(what, timeout)
    return time.monotonic() - begin


def census() -> dict[str, int]:
    """Count the three tables: a task is in exactly one of them."""
    return {
        "tasks": Task.objects.count(),
        "results": Result.objects.count(),
        "dead letters": DeadLetter.objects.count(),
    }


def _census_if_any() -> dict[str, int]:
    with suppress(DatabaseError):  # some tests have a database of their own
        return census()
    return {}


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


class WorkerProcess:
    """A ``jobworker`` in a session of its own; its output goes to a file.

    ``prefix`` is a command that becomes the one after it, in other surroundings.
    """

    def __init__(
        self,
        env: dict[str, str],
        log: Path,
        *options: str,
        prefix: Sequence[str] = (),
    ) -> None:
        self.log = log
        command = [sys.executable, "-m", "django", "jobworker", *options]
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [*prefix, *command],
                env=env,
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    def wait_until_ready(self) -> None:
        def is_ready() -> bool:
            assert self.process.poll() is None, f"ended: {self.output()}"
            return "event=worker_started" in self.output()

        wait_for(is_ready, words="worker started")

    def output(self) -> str:
        return self.log.read_text()

    def children(self, count: int = 1) -> list[int]:
        """Return the ids of the processes that run tasks, when so many are there."""

        def leaders() -> list[int]:
            found = []
            for pid in descendants(self.pid):
                with suppress(ProcessLookupError):
                    if os.getpgid(pid) == pid:
                        found.append(pid)
            return found if len(found) >= count else []

        return wait_for(leaders, words=f"{count} children")

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self, timeout: float = PATIENCE) -> int:
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still runs: {self.output()}") from None

    def stop(self, timeout: float = PATIENCE) -> int:
        """Stop it gracefully; return its exit status."""
        if self.process.poll() is None:
            self.send(signal.SIGTERM)
        return self.wait(timeout)

    def kill_everything(self) -> list[int]:
        """Kill the worker and its children at once; return their ids."""
        pids = [self.pid, *descendants(self.pid)]
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(5)
        return pids


def says(worker: WorkerProcess, event: str) -> Callable[[], bool]:
    return lambda: f"event={event}" in worker.output()


def elsewhere() -> None:
    """Have the workers that are there look as if they were on another host."""
    Worker.objects.update(boot="another host")


def workers_alive() -> int:
    return Worker.objects.count()


def slowness() -> float:
    """Return how many times longer than alone a process takes on this machine now.

    Times that are promised hold for a machine that is not taken by others. It is at
    most ``MOST_TAKEN``: beyond that nothing can be measured, and what is late is late.
    """
    before, begin = os.times(), time.monotonic()
    subprocess.run([sys.executable, "-c", "import django.test"], check=True)
    after, took = os.times(), time.monotonic() - begin
    used = sum(after[2:4]) - sum(before[2:4])
    return min(MOST_TAKEN, max(1.0, took / used))


def close_connections() -> None:
    for connection in connections.all():
        connection.close()


def finished(count: int) -> Callable[[], Any]:
    """Return a question: are so many tasks done, and is none left?"""

    def ask() -> bool:
        numbers = census()
        done = numbers["results"] + numbers["dead letters"]
        return done == count and numbers["tasks"] == 0

    return ask
