"""A worker for hours, then many starts and stops: does anything grow, or stay behind?

``python -m tests.processes.soak --database URL --seconds N --starts M`` prints one line
of JSON; URLs are those of ``tests.processes.chaos``. Its exit status is 0 when memory,
descriptors and threads of the worker's parent stayed flat, and every start took a task,
stopped with status 0 and left no process, session or row.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from tests.processes.chaos.__main__ import set_up_django
from tests.processes.chaos.hosts import Host, Program, env_of, worker_command
from tests.processes.chaos.journal import Journal
from tests.processes.chaos.nursery import Nursery
from tests.processes.chaos.servers import open_server
from tests.processes.chaos.servers.base import Server

_MEGABYTE = 1024 * 1024
#: The first part of a soak, in which caches fill, does not count.
WARM_UP = 0.15
#: Tasks that are done before the first sample is taken.
AT_WORK = 20
#: Samples in a soak.
SAMPLES = 120
#: Seconds between two kills of a child: those are replaced, and leave nothing.
KILL_EVERY = 15.0
#: Growth of the parent that is allowed: megabytes per hour; in all for a soak that is
#: shorter than so many seconds, as the allocator's own steps are larger.
MOST_PER_HOUR = 1.0
MOST_AT_ALL = 1.5
LONG = 600.0
#: Seconds between two calls of the producer, on average.
PAUSE = 0.03
#: Seconds that a start may take to its first result, and a stop to its end.
PATIENCE = 30.0
#: Seconds in which what a worker has started ends after it.
GRACE = 1.0


class Place(NamedTuple):
    """Where workers are started."""

    nursery: Nursery
    server: Server
    journal: Journal
    random: random.Random

    def host(self, name: str, *options: str) -> Host:
        command = worker_command(name, "--processes", "2", *options)
        return Host(self.nursery, name, command, self._env(name))

    def producer(self) -> Program:
        name = "producer"
        seed = str(self.random.random())
        words = ["-m", "tests.processes.chaos.load", name, seed, str(PAUSE)]
        return Program(self.nursery, name, [sys.executable, *words], self._env(name))

    def _env(self, name: str) -> dict[str, str]:
        settings = self.server.settings(self.server.addresses)
        return {
            **env_of(self.nursery.folder, name),
            "CHAOS_DATABASE": json.dumps(settings),
            "DJANGO_JOBS_TEST_DATABASE": self.server.kind,
        }


class Sample(NamedTuple):
    """The parent of a worker at a time."""

    at: float  #: monotonic
    memory: float  #: resident, in megabytes
    descriptors: int
    threads: int


def main() -> int:
    options = read_options()
    with ExitStack() as stack:
        report = run(options, stack)
    sys.stdout.write(json.dumps(report) + "\n")
    return 0 if report["valid"] else 1


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.processes.soak",
        description="Run a worker for long, and start and stop one often.",
    )
    parser.add_argument("--database", default="sqlite://", metavar="URL")
    parser.add_argument("--seconds", type=float, default=3600, metavar="N")
    parser.add_argument("--starts", type=int, default=1000, metavar="M")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    return parser.parse_args()


def run(options: argparse.Namespace, stack: ExitStack) -> dict[str, Any]:
    """Make a site, watch it, and return what was seen."""
    nursery = Nursery()
    stack.callback(nursery.close)
    server = open_server(options.database, nursery)
    stack.callback(server.stop)
    server.start()
    set_up_django(server)
    from django.core.management import call_command

    call_command("migrate", run_syncdb=True, verbosity=0)
    place = Place(nursery, server, Journal(), random.Random(options.seed))
    soaked = soak(place, options.seconds) if options.seconds else {}
    started = start_and_stop(place, options.starts)
    problems = [*soaked.pop("problems", ()), *started.pop("problems")]
    return {
        "database": server.kind,
        "valid": not problems,
        **soaked,
        **started,
        "problems": problems[:20],
    }


# -- one worker for long -------------------------------------------------------------


def soak(place: Place, seconds: float) -> dict[str, Any]:
    """Keep a worker busy; return how its parent grew."""
    host, producer = place.host("soaked", "--recycle-after", "300"), place.producer()
    host.start()
    producer.start()
    # It opens what it needs as it starts, and with its first tasks.
    until = time.monotonic() + PATIENCE
    while counts()[0] < AT_WORK and time.monotonic() < until:
        time.sleep(0.05)
    samples, kills = watch(place, host, seconds)
    problems = [producer.close(PATIENCE)]
    rest = time.monotonic() + PATIENCE
    while counts()[1] and time.monotonic() < rest:
        time.sleep(0.05)
    problems = [*filter(None, [*problems, host.close(PATIENCE)])]
    grown = growth(samples)
    problems += grown.pop("problems")
    done, left = counts()
    if left:
        problems.append(f"{left} tasks were not done")
    return {
        "seconds": round(seconds),
        "tasks": done,
        "killed_children": kills,
        **grown,
        "problems": problems,
    }


def watch(place: Place, host: Host, seconds: float) -> tuple[list[Sample], int]:
    """Take samples of a worker, and kill a child now and then; return how often."""
    began, samples, kills = time.monotonic(), list[Sample](), 0
    while (now := time.monotonic()) < began + seconds:
        if now >= began + (kills + 1) * KILL_EVERY:
            kills += kill_some_child(place, host)
        time.sleep(seconds / SAMPLES)
        samples.append(take_sample(host.worker))
        if len(samples) % 10 == 0:
            place.journal.say(str(samples[-1]))
    return samples, kills


def kill_some_child(place: Place, host: Host) -> bool:
    """Kill one if there is any: the last one may not have been replaced yet."""
    children = host.children()
    return bool(children and host.kill_child(place.random.choice(children)))


def take_sample(pid: int) -> Sample:
    status = dict(
        line.split(":", 1)
        for line in Path(f"/proc/{pid}/status").read_text().splitlines()
    )
    memory = int(status["VmRSS"].split()[0]) / 1024
    descriptors = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return Sample(time.monotonic(), memory, descriptors, int(status["Threads"]))


def growth(samples: Sequence[Sample]) -> dict[str, Any]:
    """Compare the end of a soak with its beginning, once it was warm."""
    warm = samples[int(len(samples) * WARM_UP) :]
    quarter = max(1, len(warm) // 4)
    first, last = warm[:quarter], warm[-quarter:]
    slope, _ = statistics.linear_regression(
        [each.at / 3600 for each in warm], [each.memory for each in warm]
    )

    def medians(field: Callable[[Sample], float]) -> tuple[float, float]:
        return tuple(statistics.median(map(field, part)) for part in (first, last))  # type: ignore[return-value]

    memory = medians(lambda each: each.memory)
    descriptors = medians(lambda each: each.descriptors)
    threads = medians(lambda each: each.threads)
    grown = memory[1] - memory[0]
    problems = []
    if samples[-1].at - samples[0].at < LONG:
        if grown > MOST_AT_ALL:
            problems.append(f"memory grew by {grown:.1f} MB")
    elif slope > MOST_PER_HOUR:
        problems.append(f"memory grew by {slope:.2f} MB an hour")
    if descriptors[1] > descriptors[0]:
        problems.append(f"descriptors grew from {descriptors[0]} to {descriptors[1]}")
    if threads[1] > threads[0]:
        problems.append(f"threads grew from {threads[0]} to {threads[1]}")
    return {
        "memory_mb": [round(each, 1) for each in memory],
        "memory_mb_per_hour": round(slope, 2),
        "descriptors": list(descriptors),
        "threads": list(threads),
        "problems": problems,
    }


def counts() -> tuple[int, int]:
    """Return how many tasks are done, and how many are not."""
    from django_jobs.models import DeadLetter, Result, Task

    return Result.objects.count() + DeadLetter.objects.count(), Task.objects.count()


# -- many workers for a moment -------------------------------------------------------


def start_and_stop(place: Place, starts: int) -> dict[str, Any]:
    """Start a worker, have it do a task, stop it; again and again."""
    problems: list[str] = []
    processes, sessions = set(place.nursery.left()), len(place.server.sessions())
    began = time.monotonic()
    for number in range(1, starts + 1):
        problem = start_once(place)
        left = left_after(GRACE, place, processes)
        if problem or left:
            problems.append(problem or f"start {number} left processes {sorted(left)}")
        if number % 50 == 0:
            place.journal.say(f"{number} starts")
    seconds = time.monotonic() - began
    after = len(place.server.sessions())
    if after > sessions:
        problems.append(f"{after - sessions} sessions are left")
    return {
        "starts": starts,
        "seconds_per_start": round(seconds / max(1, starts), 2),
        "problems": problems + _rows_left(),
    }


def left_after(seconds: float, place: Place, before: set[int]) -> set[int]:
    """Return which processes are still there after so many seconds, at most."""
    until = time.monotonic() + seconds
    while left := set(place.nursery.left()) - before:
        if time.monotonic() > until:
            return left
        time.sleep(0.01)
    return set()


def start_once(place: Place) -> str:
    """Return what went wrong, if anything did."""
    from tests.processes.chaos import tasks

    host = place.host("restarted")
    result = tasks.plain.enqueue("restarted")
    host.start()
    try:
        result.get(timeout=PATIENCE)
    except Exception as error:
        host.kill_all()
        return f"{type(error).__name__}: {error} {host.log.read_text()[-1000:]}"
    problem = host.close(PATIENCE)
    host.log.unlink()
    return problem


def _rows_left() -> list[str]:
    from django_jobs.models import Worker

    return [f"{worker} is still registered" for worker in Worker.objects.all()]


if __name__ == "__main__":
    sys.exit(main())
