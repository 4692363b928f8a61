"""Some tasks of every kind, and what must be true of them in the end, come what may."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

from django.utils import timezone

from django_jobs import TaskDefinition, enqueue_many
from django_jobs.conf import conf
from django_jobs.models import Attempt, DeadLetter, Queue, Result, Task
from django_jobs.states import State
from django_jobs.store import get_store
from tests.processes.failpoints import tasks
from tests.processes.harness import lines, wait_for

#: How many of each kind.
KINDS: dict[TaskDefinition, int] = {
    tasks.plain: 6,
    tasks.coroutine: 2,
    tasks.atomic: 3,
    tasks.enqueue_with: 1,
    tasks.enqueue_after: 1,
    tasks.fail: 1,
    tasks.fail_once: 1,
}
#: Their run and their completion is one transaction, which may be repeated.
ATOMIC = {tasks.atomic.name, tasks.enqueue_with.name}


class Row(NamedTuple):
    """A task that is over, from either table."""

    id: str
    name: str
    args: str
    state: str
    attempt: int
    crashes: int
    max_attempts: int

    @property
    def cause(self) -> str:
        """The id of the task that enqueued this one; empty for those of the test."""
        is_follow_up = self.name == tasks.follow_up.name
        return json.loads(self.args)[1] if is_follow_up else ""


class Batch:
    """What a test has enqueued, and everything that became of it."""

    def __init__(self, folder: Path) -> None:
        self.audit = folder / f"{uuid.uuid4()}.txt"
        self.released = folder / f"{uuid.uuid4()}"
        #: By the ids of the tasks that the test has enqueued, their names.
        self.acked: dict[str, str] = {}
        #: Whose worker is not there, in a test of rescue.
        self.orphan = ""

    # -- before the fault --------------------------------------------------------------

    def enqueue(self) -> None:
        """Enqueue some of each kind, and one that is due in a moment."""
        calls = [
            kind.s(str(self.audit)) for kind, many in KINDS.items() for _ in range(many)
        ]
        soon = tasks.plain.using(run_after=timedelta(seconds=0.1))
        self._note(*enqueue_many(calls), soon.enqueue(str(self.audit)))

    def hold(self, count: int) -> None:
        """Have so many processes run a task that does not end before ``release``."""
        call = tasks.hold.s(str(self.audit), str(self.released))
        self._note(*enqueue_many([call] * count))
        wait_for(lambda: len(lines(self.audit)) == count, words="tasks that hold")

    def release(self) -> None:
        self.released.touch()

    def leave_an_orphan(self) -> None:
        """Enqueue a task that a worker has claimed which is not there any more."""
        result = tasks.plain.using(run_after=timedelta(days=1)).enqueue(str(self.audit))
        self._note(result)
        self.orphan = result.id
        Task.objects.filter(pk=result.id).update(
            state=State.RUNNING,
            worker_id=uuid.uuid4(),
            attempt=1,
            lease=1,
            last_attempted_at=timezone.now(),
        )

    def _note(self, *results) -> None:
        self.acked |= {result.id: result.record.name for result in results}

    # -- after the fault ---------------------------------------------------------------

    def running(self) -> int:
        """Count what is claimed, the orphan aside."""
        rows = Task.objects.filter(state=State.RUNNING)
        return rows.exclude(pk=self.orphan or uuid.uuid4()).count()

    def is_over(self, besides: int = 0) -> bool:
        """Tell whether no more is left to do, and spare what waits the wait."""
        waiting = Task.objects.filter(state=State.SCHEDULED)
        past = timezone.now() - timedelta(days=1)
        if waiting.exists():
            # Again after a deadlock: workers change these rows at the same time.
            get_store().in_transaction(lambda: waiting.update(run_after=past))
        return Task.objects.count() <= besides

    def conserved(self) -> None:
        """Every task is in exactly one table, and nothing is there but tasks."""
        places = Counter(
            str(pk)
            for model in (Task, Result, DeadLetter)
            for pk in model.objects.values_list("pk", flat=True)
        )
        assert set(places.values()) <= {1}
        assert set(self.acked) <= set(places)

    def verify(self) -> int:
        """Check everything; return how many crashes were counted."""
        self.conserved()
        rows = {row.id: row for row in _rows()}
        self._verify_ends(rows)
        self._verify_follow_ups(rows)
        self._verify_runs(rows)
        effects = Counter(_effects())
        assert effects == {id_: 1 for id_, row in rows.items() if _has_effect(row)}
        for row in rows.values():
            assert row.crashes < conf().CRASH_BUDGET
            assert row.attempt <= row.max_attempts + row.crashes
        return sum(row.crashes for row in rows.values())

    def _verify_ends(self, rows: dict[str, Row]) -> None:
        assert not Task.objects.exists()
        for row in rows.values():
            is_failed = row.name == tasks.fail.name
            assert row.state == (State.FAILED if is_failed else State.SUCCESSFUL), row

    def _verify_follow_ups(self, rows: dict[str, Row]) -> None:
        causes = Counter(row.cause for row in rows.values())
        assert causes.pop("", 0) == len(self.acked)
        runs = Counter(self._runs())
        for id_, name in self.acked.items():
            if name == tasks.enqueue_with.name:
                assert causes.pop(id_) == 1
            elif name == tasks.enqueue_after.name:
                assert 1 <= causes.pop(id_) <= runs[id_]
        assert not causes

    def _verify_runs(self, rows: dict[str, Row]) -> None:
        noted = lines(self.audit)
        alone = [line for line in noted if rows[line.split()[0]].name not in ATOMIC]
        assert len(set(alone)) == len(alone)  # a claim is a right to one run
        runs = Counter(self._runs())
        assert set(runs) == set(rows)
        # A further run has a reason that was written down.
        reasons = Counter(map(str, Attempt.objects.values_list("task_id", flat=True)))
        for row in rows.values():
            assert row.name in ATOMIC or runs[row.id] <= 1 + reasons[row.id]

    def _runs(self) -> Iterator[str]:
        return (line.split()[0] for line in lines(self.audit))


def _rows() -> Iterator[Row]:
    fields = ("pk", "name", "args")
    numbers = ("attempt", "crashes", "max_attempts")
    for pk, name, args, state, *rest in Result.objects.values_list(
        *fields, "state", *numbers
    ):
        yield Row(str(pk), name, args, state, *rest)
    for pk, name, args, *rest in DeadLetter.objects.values_list(*fields, *numbers):
        yield Row(str(pk), name, args, State.FAILED, *rest)


def _effects() -> Iterator[str]:
    for name in Queue.objects.values_list("name", flat=True):
        yield name.split()[0]


def _has_effect(row: Row) -> bool:
    return row.name == tasks.atomic.name and row.state == State.SUCCESSFUL
