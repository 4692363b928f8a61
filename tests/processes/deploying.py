"""The processes of a deploy: workers and producers of several releases."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from uuid import UUID

from django_jobs.models import DeadLetter, Result, Task
from tests.processes.harness import WorkerProcess, lines, wait_for
from tests.processes.releases import Release
from tests.scratch import SCRATCH

#: What the tasks that fail say of it; nothing else is worth a line.
EXPECTED = re.compile(r"event=task_finished task=fleet\.tasks\.(fail|retried) ")
SAID = re.compile(r" (WARNING|ERROR|CRITICAL) +(.*)|^Traceback")
#: What the process that forks the children said of its end, in releases of the past.
FAREWELL = re.compile(
    r"^Exception ignored in: <module 'threading'.*?^SystemExit: $", re.M | re.S
)


class Fleet:
    """What runs, and what became of the tasks."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.audit = folder / "audit.txt"
        self._folder = folder
        self._stack = stack
        self._numbers = itertools.count(1)
        self._acked: list[Path] = []

    # -- processes -------------------------------------------------------------------

    def worker(self, release: Release, *options: str) -> WorkerProcess:
        log = self._folder / f"{release.name}-{next(self._numbers)}.log"
        words = ("--processes", "1", *options)
        worker = WorkerProcess(release.env, log, *words)
        self._stack.callback(worker.kill_everything)
        return worker

    def started(self, release: Release, *options: str) -> WorkerProcess:
        worker = self.worker(release, *options)
        worker.wait_until_ready()
        return worker

    def producer(self, release: Release) -> Producer:
        producer = Producer(release, self.audit, self._folder / f"{release.name}.acked")
        self._acked.append(producer.acked)
        self._stack.callback(producer.kill)
        return producer

    def enqueue(self, release: Release, name: str, key: str, **more: object) -> UUID:
        """Have a process of a release enqueue one task."""
        arguments = json.dumps({"path": str(self.audit), "key": key, **more})
        return UUID(release.python("fleet.enqueue", name, arguments).stdout)

    # -- what became of the tasks ------------------------------------------------------

    def runs(self) -> list[str]:
        """Return the lines of the tasks that ran: a release and a key each."""
        return sorted(lines(self.audit))

    def wait_for_more(self, of: str, count: int = 30) -> None:
        """Wait until a release has run so many more tasks than up to now."""
        before = self._count(of)
        wait_for(
            lambda: self._count(of) >= before + count, 60, f"{count} more tasks of {of}"
        )

    def _count(self, of: str) -> int:
        return sum(line.startswith(f"{of} ") for line in lines(self.audit))

    def wait_until_done(self) -> None:
        tasks = Task.objects.using(SCRATCH)
        wait_for(lambda: not tasks.exists(), 60, "no task left")

    def check_accounts(self) -> int:
        """Have every task that was enqueued be in one place; return how many."""
        acked = [UUID(line) for path in self._acked for line in lines(path)]
        places = [
            key
            for model in (Task, Result, DeadLetter)
            for key in model.objects.using(SCRATCH).values_list("pk", flat=True)
        ]
        assert len(places) == len(set(places)), "a task is in two places"
        assert set(acked) == set(places), "a task is lost, or came from nowhere"
        ran = Counter(line.partition(" ")[2] for line in lines(self.audit))
        assert [key for key, times in ran.items() if times > 1] == []
        assert len(ran) == len(acked)
        return len(acked)


class Producer:
    """A process that enqueues until it is stopped."""

    def __init__(self, release: Release, audit: Path, acked: Path) -> None:
        self.acked = acked
        words = [sys.executable, "-m", "fleet.produce", str(audit), str(acked)]
        self._log = acked.with_suffix(".errors")
        with self._log.open("w") as errors:
            self._process = subprocess.Popen(
                words, env=release.env, stdin=subprocess.PIPE, stderr=errors
            )

    def wait_for_more(self, count: int = 30) -> None:
        before = len(lines(self.acked))
        wait_for(
            lambda: len(lines(self.acked)) >= before + count or self._ended(),
            words=f"{count} more tasks enqueued",
        )
        assert not self._ended(), self._log.read_text()

    def _ended(self) -> bool:
        return self._process.poll() is not None

    def stop(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        assert self._process.wait(20) == 0, self._log.read_text()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(5)


def trouble(worker: WorkerProcess, *expected: str) -> list[str]:
    """Return what a worker complained of, but for what was to be expected."""
    said = filter(SAID.search, FAREWELL.sub("", worker.output()).splitlines())
    unusual = [line for line in said if not EXPECTED.search(line)]
    return [line for line in unusual if not any(each in line for each in expected)]


@contextmanager
def fleet(folder: Path) -> Iterator[Fleet]:
    with ExitStack() as stack:
        yield Fleet(folder, stack)
