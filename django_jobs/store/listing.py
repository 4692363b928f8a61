"""Overviews: lists of tasks, attempts and workers, and how much waits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django_jobs.ids import canonical
from django_jobs.records import AttemptLine, Backlog, TaskLine, WorkerLine
from django_jobs.states import RESULT_STATES, State
from django_jobs.store.dialect import Dialect, as_id, as_int, as_text, as_time

#: What a list shows of a task; the arguments stay where they are.
LINE = (
    "id, {state}, name, queue_name, order_key, attempt, max_attempts, "
    "{{utc[enqueued_at]}}, {{utc[run_after]}}, "
)
TASKS = LINE.format(state="state") + "NULL, summary, '' FROM {task}"
RESULTS = LINE.format(state="state") + "{utc[finished_at]}, summary, '' FROM {result}"
DEAD_LETTERS = (
    LINE.format(state="'FAILED'") + "{utc[finished_at]}, summary, reason "
    "FROM {dead_letter}"
)
ATTEMPTS = """
SELECT number, verdict, worker_id, worker_name, {utc[started_at]},
    {utc[finished_at]}, exception_class, message, traceback, log, {utc[requeued_at]}
FROM {attempts} WHERE task_id = %s ORDER BY id
"""
WORKERS = """
SELECT id, name, host, pid, queues, state, running, {utc[started_at]},
    {utc[seen_at]}, CASE WHEN expires_at > {now} THEN 1 ELSE 0 END
FROM {worker} ORDER BY name, id
"""
#: How long the oldest READY task is due: neither negative nor for ever.
OLDEST_READY = """
SELECT {until[due]} FROM (
    SELECT {earliest}({latest}(first, {later[%s]}), {now}) AS due FROM (
        SELECT (SELECT MIN(run_after) FROM {task} WHERE state = 'READY') AS first
    ) f WHERE first IS NOT NULL) d
"""
LONGEST_DUE = 100 * 365 * 86_400.0
COUNT_DEAD_LETTERS = "SELECT COUNT(*) FROM {dead_letter}"
#: How many rows of both tables of the finished meet a condition.
COUNT_FINISHED = """
SELECT (SELECT COUNT(*) FROM {result} WHERE %(past)s)
    + (SELECT COUNT(*) FROM {dead_letter} WHERE %(past)s)
"""
PAST_RETENTION = COUNT_FINISHED % {"past": "prune_at <= {now}"}
FINISHED_BEFORE = COUNT_FINISHED % {"past": "finished_at <= {later[%s]}"}
#: The path of a class, or its last part. By the collation of the database, which may
#: take Valueerror for ValueError: the rows are looked at once more.
OF_ERROR = "(exception_class = %s OR exception_class LIKE %s ESCAPE '!')"


class Listing(Dialect):
    """Queries for people who look at the queue."""

    def find(
        self,
        *,
        state: str | None = None,
        queue_name: str | None = None,
        name: str | None = None,
        limit: int = 100,
    ) -> list[TaskLine]:
        wanted = {"queue_name": queue_name, "name": name}
        lines = []
        for table in _tables(state):
            # A dead letter has one state only, and no column for it.
            filters = wanted if table is DEAD_LETTERS else {**wanted, "state": state}
            lines += self._newest(table, filters, limit)
        lines.sort(key=lambda line: line.id, reverse=True)
        return lines[:limit]

    def _newest(
        self, table: str, filters: dict[str, str | None], limit: int
    ) -> list[TaskLine]:
        given = {column: each for column, each in filters.items() if each is not None}
        where = " AND ".join(f"{column} = %s" for column in given) or "1 = 1"
        query = f"SELECT {table} WHERE {where} ORDER BY id DESC LIMIT %s"
        return [_as_line(row) for row in self.rows(query, [*given.values(), limit])]

    def find_dead_letters(
        self,
        *,
        queue_name: str | None = None,
        name: str | None = None,
        error: str | None = None,
        after: str | None = None,
        limit: int = 1000,
    ) -> list[str]:
        conditions: dict[str, list[Any]] = {
            "queue_name = %s": [queue_name],
            "name = %s": [name],
            OF_ERROR: [error, error and _ends_with(error)],
        }
        while rows := self._dead_letters(conditions, after, limit):
            ids = [as_id(row[0]) for row in rows if _is_of_error(row[1], error)]
            if found := [each for each in ids if canonical(each)]:
                return found
            last, after = after, as_id(rows[-1][0])
            if after == last:  # ids that SQLite sorts in a way of its own
                break
        return []

    def _dead_letters(
        self, conditions: dict[str, list[Any]], after: str | None, limit: int
    ) -> list[Any]:
        """Return ids and classes of errors of the dead letters behind one."""
        conditions = {**conditions, "id > %s": [after and self.to_id(after)]}
        given = {key: each for key, each in conditions.items() if each[0] is not None}
        where = " AND ".join(given) or "1 = 1"
        columns = "SELECT id, exception_class FROM {dead_letter}"
        query = f"{columns} WHERE {where} ORDER BY id LIMIT %s"
        params = [value for each in given.values() for value in each]
        return self.rows(query, [*params, limit])

    def count_prunable(self, *, older_than: float | None = None) -> int:
        if older_than is None:
            rows = self.rows(PAST_RETENTION)
        else:
            rows = self.rows(FINISHED_BEFORE, [-older_than] * 2)
        return int(rows[0][0])

    def attempts(self, task_id: str) -> list[AttemptLine]:
        rows = self.rows(ATTEMPTS, [self.to_id(task_id)])
        return list(map(_as_attempt, rows))

    def workers(self) -> list[WorkerLine]:
        return list(map(_as_worker, self.rows(WORKERS)))

    def backlog(self) -> Backlog:
        ages = [row[0] for row in self.rows(OLDEST_READY, [-LONGEST_DUE])]
        oldest = max(-float(ages[0]), 0.0) if ages and ages[0] is not None else None
        return Backlog(oldest, int(self.rows(COUNT_DEAD_LETTERS)[0][0]))


def _is_of_error(path: Any, error: str | None) -> bool:
    return error is None or f".{as_text(path)}".endswith(f".{error}")


def _ends_with(error: str) -> str:
    """Return a pattern for the paths that end in this name."""
    name = error.replace("!", "!!").replace("_", "!_").replace("%", "!%")
    return f"%.{name}"


def _tables(state: str | None) -> Sequence[str]:
    if state is None:
        return (TASKS, RESULTS, DEAD_LETTERS)
    if state == State.FAILED:
        return (DEAD_LETTERS,)
    return (RESULTS,) if state in RESULT_STATES else (TASKS,)


def _as_line(row: Sequence[Any]) -> TaskLine:
    return TaskLine._make(
        [
            *(as_id(row[0]), *map(as_text, row[1:4]), -as_int(row[4])),
            *(*map(as_int, row[5:7]), *map(as_time, row[7:10])),
            *map(as_text, row[10:]),
        ]
    )


def _as_attempt(row: Sequence[Any]) -> AttemptLine:
    return AttemptLine._make(
        [
            *(as_int(row[0]), as_text(row[1])),
            *(None if row[2] is None else as_id(row[2]), as_text(row[3])),
            *(*map(as_time, row[4:6]), *map(as_text, row[6:9])),
            *(None if row[9] is None else as_text(row[9]), as_time(row[10])),
        ]
    )


def _as_worker(row: Sequence[Any]) -> WorkerLine:
    return WorkerLine._make(
        [
            *(as_id(row[0]), *map(as_text, row[1:3]), as_int(row[3])),
            *(*map(as_text, row[4:6]), as_int(row[6]), *map(as_time, row[7:9])),
            bool(row[9]),
        ]
    )
