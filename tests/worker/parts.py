"""Stand-ins for what is around the part under test."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any, TypeVar, cast

from django_jobs.records import ClaimedTask, Cycle, Demand, Outcome
from django_jobs.states import Verdict
from django_jobs.worker.completer import Completer, Job
from django_jobs.worker.lanes import Lane
from django_jobs.worker.options import WorkerOptions
from django_jobs.worker.outage import Outage
from django_jobs.worker.pool import Child, Phase, Pool

Answer = TypeVar("Answer")
PATIENCE = 20.0
#: No process has this number: Linux ends at 4,194,304.
NOBODY = 99_999_999
SHORT = "tests.sampleapp.tasks.add"
ASYNC = "tests.sampleapp.tasks.double"
_numbers = itertools.count(1)


def claimed(name: str = SHORT, **changes: Any) -> ClaimedTask:
    """Return a claimed task with an id of its own."""
    fields: dict[str, Any] = {
        "id": f"01990000-0000-7000-8000-{next(_numbers):012x}",
        "lease": 1,
        "attempt": 1,
        "crashes": 0,
        "max_attempts": 3,
        "name": name,
        "queue_name": "default",
        "priority": 0,
        "args": "[]",
        "kwargs": "{}",
        "metadata": "{}",
        "headers": "{}",
        "time_limit": None,
        "is_expired": False,
    }
    return ClaimedTask(**{**fields, **changes})


def outcome(task: ClaimedTask, **changes: Any) -> Outcome:
    """Return the outcome of a run that took a millisecond."""
    now = time.monotonic()
    told = Outcome(task.id, task.lease, Verdict.SUCCESSFUL, now - 0.001, now)
    return told._replace(**changes)


def ids(tasks: Iterable[Any]) -> list[str]:
    return [task.id for task in tasks]


def wait_for(what: Callable[[], Answer]) -> Answer:
    """Return the first true answer; AssertionError when the deadline passes."""
    deadline = time.monotonic() + PATIENCE
    while not (answer := what()):
        assert time.monotonic() < deadline, f"not within {PATIENCE} s: {what}"
        time.sleep(0.001)
    return answer


class Clock:
    """The ``time`` of a module, moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class FakeChannel:
    """Keeps what is posted."""

    def __init__(self) -> None:
        self.posted: list[list[Any]] = []
        self.is_closed = False

    def post(self, message: list[Any]) -> None:
        self.posted.append(message)

    def flush(self) -> bool:
        return True

    def close(self) -> None:
        self.is_closed = True

    def sent(self) -> list[str]:
        """Return the ids of the tasks that were sent, in their order."""
        runs = [message[1] for message in self.posted if message[0] == "run"]
        return [task.id for tasks in runs for task in tasks]


class FakeChild(Child):
    """A child without a process."""

    def __init__(
        self,
        *,
        threads: int = 1,
        coroutines: int = 10,
        recycle_after: int | None = None,
        channel: Any = None,
    ) -> None:
        self.number = next(_numbers)
        self.worker_id = ""
        self.channel = channel or FakeChannel()
        self.phase = Phase.READY
        self.lanes = {False: Lane(threads), True: Lane(coroutines)}
        self.finished = 0
        self.is_recalling = False
        self.is_worn_out = False
        self.killed_for = None
        self.fault = ""
        self._most_tasks = recycle_after
        self.process = cast(
            Any,
            SimpleNamespace(
                pid=NOBODY,
                exitcode=-9,
                sentinel=-1,
                join=lambda timeout: None,
                close=lambda: None,
            ),
        )

    def last_fault(self) -> str:
        return self.fault

    def bury(self) -> None:
        self.channel.close()


def pool_of(*children: FakeChild, **options: Any) -> Pool:
    pool = Pool(WorkerOptions(database="default", processes=len(children), **options))
    pool.children = list(children)
    return pool


class FakeStore:
    """Answers as told, and keeps what it was asked."""

    has_single_writer = False

    def __init__(self) -> None:
        self.cycles: list[tuple[str, list[Outcome], Demand | None]] = []
        self.queue: list[ClaimedTask] = []
        self.mine: list[tuple[str, int]] = []
        #: Of tasks whose rows somebody else has locked.
        self.locked: set[str] = set()
        self.alive: set[str] = set()
        self.due: list[float | None] = []
        self.promoted = 0
        #: Queue and name of what others gave back.
        self.strays: list[tuple[str, str]] = []
        self.signed_off: list[str] = []

    def cycle(
        self,
        worker_id: str,
        outcomes: list[Outcome],
        demand: Demand | None,
        *,
        again: bool = False,
    ) -> Cycle:
        self.cycles.append((worker_id, list(outcomes), demand))
        limit = demand.limit if demand else 0
        tasks, self.queue = self.queue[:limit], self.queue[limit:]
        locked = {outcome.id for outcome in outcomes} & self.locked if again else ()
        return Cycle(tasks, [], locked=tuple(sorted(locked)))

    def held(self, worker_id: str) -> list[tuple[str, int]]:
        return self.mine

    def is_alive(self, worker_id: str) -> bool:
        return worker_id in self.alive

    def next_due(self) -> float | None:
        return self.due.pop(0) if self.due else None

    def promote(self) -> int:
        return self.promoted

    def adopt(self, within: float, is_ours: Callable[[str, str], bool]) -> int:
        ours = [stray for stray in self.strays if is_ours(*stray)]
        self.strays = [stray for stray in self.strays if stray not in ours]
        return len(ours)

    def sign_off(self, worker_id: str) -> int:
        self.signed_off.append(worker_id)
        return 0

    def written(self) -> list[Outcome]:
        """Return all outcomes that were written, in their order."""
        return [each for _, outcomes, _ in self.cycles for each in outcomes]

    def demands(self) -> list[int]:
        """Return the limits of all claims."""
        return [demand.limit for _, _, demand in self.cycles if demand]


class HandCompleter(Completer):
    """Keeps the jobs until they are done by hand, in the same thread."""

    def __init__(self, store: FakeStore, clock: Clock | None = None) -> None:
        self.store = cast(Any, store)
        self.clock = clock
        self.outage = Outage("default")
        self.in_flight = 0
        self.jobs: list[Job] = []

    @property
    def is_free(self) -> bool:
        return self.in_flight < 2

    def submit(self, job: Job) -> None:
        if self.clock:
            job.started = self.clock.now
        self.in_flight += 1
        self.jobs.append(job)

    def names(self) -> list[str]:
        return [job.name for job in self.jobs]

    def work(self, name: str = "", failures: int = 0) -> Job:
        """Do the oldest job (of that name) on the database, and nothing more."""
        job = next(job for job in self.jobs if name in ("", job.name))
        self.jobs.remove(job)
        job.failures = failures
        job.is_doubtful = failures > 0
        job.answer = job.work(self.store)
        return job

    def do(self, name: str = "", failures: int = 0) -> None:
        """Do the oldest job (of that name) and take its answer."""
        self.finish(self.work(name, failures))

    def do_all(self) -> None:
        while self.jobs:
            self.do()
