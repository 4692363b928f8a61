"""What is in the tables, as one look sees it."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

from django_jobs.store.dialect import as_id, as_time
from tests.simulation.database import EFFECTS, run

#: All of it at once, so that nothing is seen twice or not at all.
LOOK = f"""
SELECT 'Task', id, state, attempt, crashes, lease, worker_id, revoke_requested, NULL,
    run_after, unknown_since FROM django_jobs_task
UNION ALL
SELECT 'Result', id, state, attempt, crashes, lease, worker_id, FALSE, return_value,
    prune_at, finished_at FROM django_jobs_result
UNION ALL
SELECT 'DeadLetter', id, 'FAILED', attempt, crashes, lease, worker_id, FALSE, reason,
    prune_at, finished_at FROM django_jobs_deadletter
UNION ALL
SELECT 'Worker', id, state, 0, 0, 0, NULL, FALSE, NULL, expires_at, NULL
FROM django_jobs_worker
UNION ALL
SELECT 'Effect', task_id, '', 0, 0, lease, NULL, FALSE, NULL, NULL, NULL
FROM {EFFECTS}
"""
ATTEMPTS = "SELECT task_id, verdict FROM django_jobs_attempt ORDER BY id"


class Row(NamedTuple):
    """A task, wherever it is."""

    place: str
    state: str
    attempt: int = 0
    crashes: int = 0
    lease: int = 0
    worker: str | None = None
    is_revoked: bool = False  #: it runs, and shall stop
    value: str | None = None  #: a result's return value, a dead letter's reason


class Times(NamedTuple):
    """The times of a row: due and unknown since, or to be pruned and finished."""

    first: datetime | None
    second: datetime | None


class Lease(NamedTuple):
    """A row of the workers."""

    state: str
    expires_at: datetime


class Doubled(AssertionError):
    """A task is in two places."""


class Sight:
    """The tables at one moment."""

    def __init__(self, rows: list[Any] | None = None) -> None:
        self.tasks: dict[str, Row] = {}
        self.times: dict[str, Times] = {}
        self.workers: dict[str, Lease] = {}
        self.effects: list[tuple[str, int]] = []
        for row in rows or []:
            self._add(row)

    def _add(self, row: Any) -> None:
        place, key = row[0], as_id(row[1])
        if place == "Worker":
            expires_at = as_time(row[9])
            assert expires_at is not None
            self.workers[key] = Lease(row[2], expires_at)
        elif place == "Effect":
            self.effects.append((key, row[5]))
        elif key in self.tasks:
            raise Doubled(f"{key} is a {self.tasks[key].place} and a {place}")
        else:
            worker = None if row[6] is None else as_id(row[6])
            self.tasks[key] = Row(place, *row[2:6], worker, bool(row[7]), row[8])
            self.times[key] = Times(as_time(row[9]), as_time(row[10]))


def look() -> Sight:
    return Sight(run(LOOK))


def kept_attempts() -> dict[str, list[str]]:
    """Return the verdicts of the attempts that are kept, by task."""
    kept: dict[str, list[str]] = {}
    for task_id, verdict in run(ATTEMPTS):
        kept.setdefault(as_id(task_id), []).append(verdict)
    return kept
