"""The attempt under way: its task, what surrounds it, and how far it has come."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django_jobs.context import TaskContext
from django_jobs.definitions import TaskDefinition
from django_jobs.records import ClaimedTask, Outcome
from django_jobs.worker.capture import LogTail


@dataclass(slots=True)
class Attempt:
    """What is known of an attempt while it runs."""

    task: ClaimedTask
    definition: TaskDefinition[Any, Any]
    context: TaskContext
    tail: LogTail
    started: float
    soft_time_limit: float | None
    database: str
    #: Has an atomic task watched again, at the start of each run of its body.
    rewatch: Callable[[Attempt], None]
    #: Completes an atomic task in the transaction of its body.
    complete: Callable[[Outcome], None]
    #: When the soft limit is over, monotonic.
    soft_deadline: float | None = None
    #: It was completed in a transaction, whether or not that has committed.
    was_completed: bool = False
    #: The outcome, once an atomic task has completed itself.
    recorded: Outcome | None = None
    #: Its transaction has committed.
    is_committed: bool = False

    def note_commit(self) -> None:
        self.is_committed = True
