"""The rows of the queue at the end of a run, by key."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from datetime import datetime

from django_jobs.models import Attempt, DeadLetter, Result, Task
from django_jobs.states import REFUNDED_VERDICTS
from tests.processes.chaos.models import Effect, Order


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
    finished_at: datetime | None

    @property
    def is_finished(self) -> bool:
        return self.table != "Task"


@dataclass(frozen=True, slots=True)
class Rows:
    """What the database says at the end."""

    rows: list[Row]
    #: Attempts that count, by (id of the task, number, when it was put back to work).
    attempts: Counter[tuple[str, int, datetime | None]]
    #: What attempts failed with.
    errors: Counter[str]
    effects: Counter[str]
    orders: set[str]


def read_rows() -> Rows:
    attempts = Attempt.objects.exclude(verdict__in=REFUNDED_VERDICTS)
    errors = Attempt.objects.values_list("exception_class", flat=True)
    return Rows(
        rows=[*_of(Task), *_of(Result), *_of(DeadLetter)],
        attempts=Counter(
            (str(task_id), number, requeued)
            for task_id, number, requeued in attempts.values_list(
                "task_id", "number", "requeued_at"
            )
        ),
        errors=Counter(errors),
        effects=Counter(Effect.objects.values_list("key", flat=True)),
        orders=set(Order.objects.values_list("key", flat=True)),
    )


def _of(model: type[Task] | type[Result] | type[DeadLetter]) -> list[Row]:
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
            finished_at=getattr(each, "finished_at", None),
        )
        for each in model.objects.iterator()
    ]


def _returned(row: Task | Result | DeadLetter) -> Answer | None:
    text = getattr(row, "return_value", None)
    return None if text is None else Answer(*json.loads(text))
