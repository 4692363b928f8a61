"""The rows of the queue at the end of a run, by key."""

from __future__ import annotations

import json
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from django_jobs.exceptions import WorkerLost
from django_jobs.models import Attempt, DeadLetter, Result, Task
from django_jobs.states import REFUNDED_VERDICTS, Verdict
from django_jobs.store import get_store
from tests.processes.chaos.models import Effect, Order, Pruned

#: Seconds by which the clocks of the database and of the machine may drift apart.
DRIFT = 0.5


@dataclass(frozen=True, slots=True)
class Answer:
    """What a task returned: the key that it was given, and the lease of the run."""

    key: str
    lease: int


@dataclass(frozen=True, slots=True)
class Row:
    """A row of one of the three tables."""

    table: str
    id: str
    key: str
    name: str
    state: str
    reason: str
    attempt: int
    lease: int
    crashes: int
    max_attempts: int
    returned: Answer | None
    finished: float | None  #: monotonic

    @property
    def is_finished(self) -> bool:
        return self.table != "Task"


@dataclass(frozen=True, slots=True)
class Record:
    """A row about an attempt that did not succeed."""

    id: str  #: of the task
    number: int
    verdict: str
    error: str  #: its class
    finished: float  #: monotonic
    requeued: float | None = None  #: history since then, monotonic

    @property
    def is_crash(self) -> bool:
        """Did its process or its worker die? The last crash is a failure, too."""
        return self.verdict == Verdict.CRASHED or self.error == LOST

    @property
    def is_spent(self) -> bool:
        """Has the attempt been used up?"""
        return self.verdict not in REFUNDED_VERDICTS


#: The error of a task whose process or worker died.
LOST = f"{WorkerLost.__module__}.{WorkerLost.__qualname__}"


@dataclass(frozen=True, slots=True)
class Gone:
    """A result that was deleted."""

    id: str
    key: str
    was_due: bool  #: was its retention over?


@dataclass(frozen=True, slots=True)
class Rows:
    """What the database says at the end."""

    rows: list[Row]
    records: list[Record]
    pruned: list[Gone]
    effects: Counter[str]
    orders: set[str]


def read_rows() -> Rows:
    # The time of the database's clock at which the monotonic one was 0.
    epoch = get_store().now().timestamp() - time.monotonic()
    return Rows(
        rows=[*_of(Task, epoch), *_of(Result, epoch), *_of(DeadLetter, epoch)],
        records=list(_records(epoch)),
        pruned=list(_pruned()),
        effects=Counter(Effect.objects.values_list("key", flat=True)),
        orders=set(Order.objects.values_list("key", flat=True)),
    )


def _pruned() -> Iterator[Gone]:
    for each in Pruned.objects.iterator():
        task_id = str(uuid.UUID(each.task_id))
        yield Gone(task_id, json.loads(each.args)[0], each.was_due)


def _records(epoch: float) -> Iterator[Record]:
    for each in Attempt.objects.iterator():
        yield Record(
            id=str(each.task_id),
            number=each.number,
            verdict=str(each.verdict),
            error=each.exception_class,
            finished=each.finished_at.timestamp() - epoch,
            requeued=_monotonic(each.requeued_at, epoch),
        )


def _monotonic(moment: datetime | None, epoch: float) -> float | None:
    return None if moment is None else moment.timestamp() - epoch


def _of(model: type[Task] | type[Result] | type[DeadLetter], epoch: float) -> list[Row]:
    return [
        Row(
            table=model.__name__,
            id=str(each.id),
            key=json.loads(each.args)[0],
            name=each.name,
            state=str(each.state),
            reason=getattr(each, "reason", ""),
            attempt=each.attempt,
            lease=each.lease,
            crashes=each.crashes,
            max_attempts=each.max_attempts,
            returned=_returned(each),
            finished=_monotonic(getattr(each, "finished_at", None), epoch),
        )
        for each in model.objects.iterator()
    ]


def _returned(row: Task | Result | DeadLetter) -> Answer | None:
    text = getattr(row, "return_value", None)
    return None if text is None else Answer(*json.loads(text))
