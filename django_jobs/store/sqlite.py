"""The store on SQLite: one writer at a time, every move one IMMEDIATE transaction."""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from heapq import merge
from itertools import chain, islice
from typing import Any

from django.db import transaction

from django_jobs.failpoints import reach
from django_jobs.records import ClaimedTask, Demand, Outcome
from django_jobs.store.completing import CARRIED
from django_jobs.store.inserting import MOST_PARAMS, MOST_ROWS
from django_jobs.store.portable import CLAIMED, as_claimed
from django_jobs.store.quarantine import Quarantine, check_claimed
from django_jobs.store.verdicts import is_success, success_times

#: A time as Django writes it. SQLite's clock has milliseconds; the zeros keep all
#: times equally long, since they are compared as text.
TIME = "strftime('%%Y-%%m-%%d %%H:%%M:%%f000', 'now'{shift})"
#: The first READY tasks of a queue; the plus keeps the time a text.
FIRST_READY = """
SELECT order_key, +run_after, id FROM {task}
WHERE state = 'READY' AND queue_name = %s
    AND EXISTS (SELECT 1 FROM {worker} WHERE id = %s AND {alive})
ORDER BY order_key, run_after, id LIMIT %s
"""
#: Claim the chosen tasks. What comes back has no order.
CLAIM = f"""
UPDATE {{task}} SET state = 'RUNNING', worker_id = %s, attempt = {{next[attempt]}},
    lease = {{next[lease]}}, last_attempted_at = {{now}}
WHERE {{bare_state}} = 'READY' AND id IN (<chosen>) RETURNING {CLAIMED}
"""
#: Copy a successful task to the results ...
TO_RESULT = f"""
INSERT INTO {{result}} ({CARRIED}, attempt, crashes, metadata, started_at,
    last_attempted_at, finished_at, state, return_value, log, prune_at)
SELECT {CARRIED}, attempt, crashes, COALESCE(%s, metadata),
    COALESCE(started_at, MAX(last_attempted_at, {{later[%s]}})),
    MAX(last_attempted_at, {{later[%s]}}), MAX(last_attempted_at, {{later[%s]}}),
    'SUCCESSFUL', %s, %s, {{later[%s]}}
FROM {{task}}
WHERE id = %s AND lease = %s AND worker_id = %s AND {{bare_state}} = 'RUNNING'
"""
#: ... and take it away.
DELETE_TASK = """
DELETE FROM {task}
WHERE id = %s AND lease = %s AND worker_id = %s AND {bare_state} = 'RUNNING'
"""
#: Make due tasks READY, the longest due first.
PROMOTE = """
UPDATE {task} SET state = 'READY'
WHERE {bare_state} = 'SCHEDULED' AND +run_after <= {now} AND id IN (
    SELECT id FROM {task} WHERE state = 'SCHEDULED' AND run_after <= {now}
    ORDER BY run_after LIMIT %s)
"""


class SQLiteStore(Quarantine):
    """A file that all workers of one machine share."""

    cycles_in_flight = 1
    can_count = True
    has_single_writer = True

    NOW = TIME.format(shift="")
    LATEST = "MAX"
    LEAST = "MIN"
    BARE_STATE = "+state"
    LOCK = ""
    LOCK_FREE = ""

    def until(self, time: str) -> str:
        return f"(julianday({time}) - julianday('now')) * 86400.0"

    def utc(self, expression: str) -> str:
        return (
            f"+{expression}"  # so that Django's converter, which may fail, is not met
        )

    def later(self, seconds: str) -> str:
        return TIME.format(shift=f", ROUND({seconds}, 3) || ' seconds'")

    @contextmanager
    def atomic(self) -> Iterator[None]:
        """Begin as a writer: a reader that wants to write later fails at once."""
        connection = self.connection
        connection.ensure_connection()
        mode, connection.transaction_mode = connection.transaction_mode, "IMMEDIATE"
        try:
            with transaction.atomic(using=self.alias):
                yield
        finally:
            connection.transaction_mode = mode

    # -- working -------------------------------------------------------------------

    def _complete(self, worker_id: str, outcomes: Sequence[Outcome]) -> list[str]:
        if not all(map(is_success, outcomes)):
            return super()._complete(worker_id, outcomes)
        rows = self._success_rows(worker_id, outcomes)
        moved = self._hot(TO_RESULT, rows, many=True).rowcount
        if moved == 0:  # all are stale, or else the slow way finds out why not
            return super()._complete(worker_id, outcomes)
        reach("complete.after_insert")
        deleted = self._hot(DELETE_TASK, [row[-3:] for row in rows], many=True).rowcount
        # When only some are stale, each is completed alone.
        self.expect(len(rows), moved, deleted)
        return []

    def _success_rows(
        self, worker_id: str, outcomes: Sequence[Outcome]
    ) -> list[tuple[Any, ...]]:
        worker = self.to_id(worker_id)
        times = success_times(outcomes)
        return [
            (
                *(outcome.metadata, started, started, finished),
                *(outcome.return_value, outcome.log, prune_in),
                *(self.to_id(outcome.id), outcome.lease, worker),
            )
            for outcome, (started, finished, prune_in) in zip(
                outcomes, times, strict=True
            )
        ]

    def _hot(self, template: str, params: Sequence[Any], *, many: bool = False) -> Any:
        return self._execute(self.sql(template), params, many=many)

    def _execute(self, text: str, params: Sequence[Any], *, many: bool = False) -> Any:
        """Execute on the driver's connection: Django's cursor takes half the time."""
        native = _native(text)
        connection = self.connection
        with connection.wrap_database_errors:
            raw = connection.connection
            return (raw.executemany if many else raw.execute)(native, params)

    def hot_rows(self, template: str, params: Sequence[Any] = ()) -> list[Any]:
        with self.connection.wrap_database_errors:
            rows: list[Any] = self._hot(template, params).fetchall()
        return rows

    @functools.cached_property
    def most_rows(self) -> int:  # type: ignore[override]
        # Old builds take 999 parameters in all.
        self.connection.ensure_connection()
        most = self.connection.connection.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER)
        return int(min(MOST_ROWS, most // MOST_PARAMS))

    def _claim(self, worker_id: str, demand: Demand) -> list[ClaimedTask]:
        tasks = {}
        with self.connection.wrap_database_errors:
            ids = self._first_ready(self.to_id(worker_id), demand)
            for marks, chunk in self.chunks(ids):
                text = self.sql(CLAIM).replace("(<chosen>)", marks)
                for row in self._execute(text, [self.to_id(worker_id), *chunk]):
                    check_claimed(row)
                    tasks[row[0]] = as_claimed(row)
        if len(tasks) < len(ids):  # nobody else writes meanwhile
            raise TypeError("the rows of some tasks have odd ids")
        return [tasks[task_id] for task_id in ids]

    def _first_ready(self, worker: str, demand: Demand) -> list[str]:
        """Return the ids of the first tasks; no more rows are read than are needed."""
        cursors = [
            self._hot(FIRST_READY, [queue, worker, demand.limit])
            for queue in self.queues_of(demand)
        ]
        rows = chain(*cursors) if demand.is_strict else merge(*cursors)
        ids = [row[2] for row in islice(rows, demand.limit)]
        for cursor in cursors:
            cursor.close()
        return ids

    def promote(self, limit: int = 5000) -> int:
        return self.run(PROMOTE, [limit])

    def changes(self) -> int | None:
        with self.connection.cursor() as cursor:
            cursor.execute("PRAGMA data_version")
            return int(cursor.fetchone()[0])


@functools.lru_cache(maxsize=1024)
def _native(text: str) -> str:
    """Return a statement with the placeholders of the driver."""
    return text.replace("%s", "?").replace("%%", "%")
