"""The store on MySQL and MariaDB: READ COMMITTED, SKIP LOCKED, then by primary key."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, ClassVar, TypeVar

from django.db import transaction
from django.db.utils import OperationalError

from django_jobs.conf import conf
from django_jobs.failpoints import reach
from django_jobs.records import ClaimedTask, Demand, Outcome
from django_jobs.store.completing import CARRIED
from django_jobs.store.connecting import close_unless_whole, connected
from django_jobs.store.dialect import MOST_COUNTED, as_id, own_transaction
from django_jobs.store.errors import LOST_CODES, RETRY_CODES, mysql_code
from django_jobs.store.inserting import MOST_ROWS, in_chunks
from django_jobs.store.portable import CLAIMED, PortableStore, as_claimed
from django_jobs.store.verdicts import is_success, success_times

T = TypeVar("T")

#: The first READY tasks of a queue, locked. The index is named: InnoDB locks what it
#: reads on the way, and rows locked through another index are not skipped. The time
#: due, by which rows of several queues are sorted, comes as text: the driver has no
#: value for what the server takes as well, as a day 0.
FIRST_READY = f"""
SELECT {CLAIMED}, CAST(run_after AS CHAR)
FROM {{task}} FORCE INDEX (django_jobs_task_ready)
WHERE state = 'READY' AND queue_name = %s
    AND EXISTS (SELECT 1 FROM {{worker}} WHERE id = %s AND {{alive}})
ORDER BY order_key, run_after, id LIMIT %s {{lock_free}}
"""
#: The names of queues that have READY tasks, one by one.
FIRST_QUEUE = "SELECT MIN(queue_name) FROM {task} WHERE state = 'READY'"
NEXT_QUEUE = f"{FIRST_QUEUE} AND queue_name > %s"
#: From which queues the first READY tasks come. It locks nothing.
PEEK = """
SELECT queue_name, order_key, run_after, id
FROM {task} FORCE INDEX (django_jobs_task_ready)
WHERE state = 'READY' AND queue_name = %s
ORDER BY order_key, run_after, id LIMIT %s
"""
FIRST_OF_ALL = """
SELECT queue_name, COUNT(*) FROM (
    SELECT queue_name FROM (<arms>) a ORDER BY order_key, run_after, id LIMIT %s) f
GROUP BY queue_name
"""
#: Claim tasks that are locked.
CLAIM = """
UPDATE {by_id[task]} SET state = 'RUNNING', worker_id = %s, attempt = {next[attempt]},
    lease = {next[lease]}, last_attempted_at = {now}
WHERE {bare_state} = 'READY' AND id IN
"""
#: Lock the tasks whose leases still hold, and read what goes to the results.
SUCCESSES = f"""
SELECT {CARRIED}, attempt, crashes, metadata, started_at, last_attempted_at, {{now}}
FROM {{by_id[task]}} WHERE state = 'RUNNING' AND worker_id = %s AND id IN
"""
#: Store results.
INSERT_RESULTS = f"""
INSERT INTO {{result}} ({CARRIED}, attempt, crashes, metadata, started_at,
    last_attempted_at, finished_at, return_value, log, prune_at, state) VALUES
"""
ROW = f"({', '.join(['%s'] * 23)}, 'SUCCESSFUL')"
#: Places in a row of ``SUCCESSES``.
LEASE, ENQUEUED, ATTEMPT = 9, 11, 14
#: Due tasks, locked.
DUE = """
SELECT id FROM {task} FORCE INDEX (django_jobs_task_scheduled)
WHERE state = 'SCHEDULED' AND run_after <= {now}
ORDER BY run_after LIMIT %s {lock_free}
"""
PROMOTE = """
UPDATE {by_id[task]} SET state = 'READY'
WHERE {bare_state} = 'SCHEDULED' AND run_after <= {now} AND id IN
"""
#: What is copied and then deleted is still as it was when it was locked.
IS_OURS = "{bare_state} = 'RUNNING' AND CONCAT(worker_id) = %s"

#: The longest statement that the server takes, in bytes.
LONGEST = "SELECT @@max_allowed_packet"
#: What a driver writes with a backslash before it.
ESCAPED = "\\\"'\0\n\r\x1a"
#: Bytes of a statement that are neither an outcome's nor the arguments of its task.
OTHER_BYTES = 64 * 1024

#: The isolation level of every transaction; another one takes locks on gaps.
COMMITTED = "read committed"
#: How often a transaction is repeated that the server rolled back, and the longest
#: pause before it, in seconds.
REPEATS = 10
PAUSE = 0.02


class MySQLStore(PortableStore):
    """InnoDB tables on one server, or on one writing node."""

    #: Of mysqlclient and PyMySQL alike, in seconds.
    DEADLINES: ClassVar[dict[str, int]] = {
        "connect_timeout": 5,
        "read_timeout": 10,
        "write_timeout": 10,
    }

    NOW = "UTC_TIMESTAMP(6)"
    BARE_STATE = "CONCAT(state)"  # with two bars it would be a logical or

    def __init__(self, alias: str) -> None:
        super().__init__(alias)
        self._last_queues: list[str] = []

    def later(self, seconds: str) -> str:
        return f"UTC_TIMESTAMP(6) + INTERVAL ROUND(1000000 * {seconds}) MICROSECOND"

    def until(self, time: str) -> str:
        return f"TIMESTAMPDIFF(MICROSECOND, UTC_TIMESTAMP(6), {time}) / 1000000"

    def leave(self, table: str) -> str:
        # Not INSERT IGNORE, which turns every other error into a warning.
        return f"ON DUPLICATE KEY UPDATE {table}.id = {table}.id"

    def by_id(self, table: str) -> str:
        # Left to itself it reads a small table as a whole, and locks what it reads.
        return f"{table} FORCE INDEX (PRIMARY)"

    def by_running(self, table: str) -> str:
        return f"{table} FORCE INDEX (django_jobs_task_running)"

    def delete_in(
        self,
        table: str,
        ids: Iterable[str],
        guard: str = "TRUE",
        params: Sequence[Any] = (),
    ) -> int:
        # A DELETE takes no hint; with a limit below the number of rows it is sure to
        # use the index.
        start = self.sql(f"DELETE FROM {{{table}}} WHERE {guard} AND id IN")
        return sum(
            self._run(f"{start} {marks} LIMIT {len(chunk)}", [*params, *chunk])
            for marks, chunk in self.chunks(ids)
        )

    @property
    def can_return(self) -> bool:  # type: ignore[override]
        return bool(self.connection.features.can_return_columns_from_insert)

    # -- transactions --------------------------------------------------------------

    def in_transaction(self, work: Callable[[], T]) -> T:
        """Do some work in one transaction, again after a deadlock.

        Never inside the caller's transaction: what else was in it is lost then. Nor
        after a long wait for a lock, or a call would take as many of them.
        """
        connection = connected(self.connection)
        is_ours = connection.autocommit and not connection.in_atomic_block
        for _ in range(REPEATS if is_ours else 0):
            try:
                with self._read_committed():
                    return work()
            except OperationalError as error:
                close_unless_whole(connection)
                if mysql_code(error) not in RETRY_CODES:
                    raise
            self.pause()
        with self._read_committed():
            return work()

    def pause(self) -> None:
        """Wait a moment, not the same one as others do."""
        time.sleep(random.uniform(0, PAUSE))  # noqa: S311 - jitter

    @contextmanager
    def _read_committed(self) -> Iterator[None]:
        connection = connected(self.connection)
        if not connection.in_atomic_block and connection.isolation_level != COMMITTED:
            # For the next transaction only.
            self.run("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")
        with transaction.atomic(using=self.alias):
            yield

    # -- working -------------------------------------------------------------------

    def refuses(self, error: Exception, outcomes: Iterable[Outcome]) -> bool:
        # Of a statement that is too long the server reads only the start, and hangs
        # up: with most of it still on its way the driver never sees error 1153.
        if mysql_code(error) in LOST_CODES:
            [(longest,)] = self.rows(LONGEST)
            # The statement may also carry the arguments of the task.
            room = longest - 2 * conf().PAYLOAD_MAX_BYTES - OTHER_BYTES
            return any(_bytes_of(outcome) > room for outcome in outcomes)
        return super().refuses(error, outcomes)

    def _complete(self, worker_id: str, outcomes: Sequence[Outcome]) -> list[str]:
        """Move the successful ones in bulk: a statement for each takes its time."""
        others = [outcome for outcome in outcomes if not is_success(outcome)]
        stale = super()._complete(worker_id, others) if others else []
        successes = list(filter(is_success, outcomes))
        held = self._successes(worker_id, [outcome.id for outcome in successes])
        moved, done = [], []
        for outcome, times in zip(successes, success_times(successes), strict=True):
            row = held.pop((outcome.id, outcome.lease), None)
            if row is None:
                stale.append(outcome.id)
            else:
                moved.append(_result_row(row, outcome, times))
                done.append(outcome.id)
        for chunk in in_chunks(moved, MOST_ROWS):
            rows = ", ".join([ROW] * len(chunk))
            text = f"{self.sql(INSERT_RESULTS)} {rows}"
            self._run(text, [value for row in chunk for value in row])
        if done:
            reach("complete.after_insert")
        worker = self.to_id(worker_id)
        self.expect(len(done), self.delete_in("task", done, IS_OURS, [worker]))
        return stale

    def _successes(self, worker_id: str, ids: Sequence[str]) -> dict[Any, Any]:
        params = [self.to_id(worker_id)]
        rows = self.rows_in(SUCCESSES, ids, params, "ORDER BY id {lock}")
        return {(as_id(row[0]), row[LEASE]): row for row in rows}

    def _claim(self, worker_id: str, demand: Demand) -> list[ClaimedTask]:
        queues, rows = self.queues_of(demand), list[Any]()
        worker = self.to_id(worker_id)
        if demand.is_strict or len(queues) == 1:
            for queue in queues:
                if rest := demand.limit - len(rows):
                    rows += self.rows(FIRST_READY, [queue, worker, rest])
        elif queues:
            for queue, count in self._shares(queues, demand.limit):
                rows += self.rows(FIRST_READY, [queue, worker, count])
            rows.sort(key=lambda row: (row[7], row[-1], row[0]))
        ids = [as_id(row[0]) for row in rows]
        self.expect(len(ids), self.run_in(CLAIM, ids, [worker]))
        return [_after_claim(as_claimed(row)) for row in rows]

    def ready_queues(self) -> list[str]:
        # The recursive query of the others reads every READY task here: a minimum is
        # found at once only next to a constant. So it asks for the first name, and
        # for the next one after each that was there last time, until none is new.
        names = self._last_queues
        while True:
            arms = " UNION ALL ".join([FIRST_QUEUE, *[NEXT_QUEUE] * len(names)])
            found = {row[0] for row in self.rows(arms, names)} - {None}
            if found.issubset(names):
                self._last_queues = sorted(found)
                return self._last_queues
            names = sorted(found.union(names))

    def _shares(self, queues: Sequence[str], limit: int) -> list[tuple[str, int]]:
        """Return how many of the first tasks are in which queue."""
        arms = " UNION ALL ".join([f"({PEEK})"] * len(queues))
        params = [value for queue in queues for value in (queue, limit)]
        template = FIRST_OF_ALL.replace("<arms>", arms)
        return [(row[0], row[1]) for row in self.rows(template, [*params, limit])]

    @own_transaction
    def promote(self, limit: int = 5000) -> int:
        due = [as_id(row[0]) for row in self.rows(DUE, [limit])]
        return self.run_in(PROMOTE, due)


def _bytes_of(outcome: Outcome) -> int:
    """Return how long the texts of an outcome are in a statement, at most."""
    texts = [outcome.return_value, outcome.log, outcome.metadata]
    return sum(
        len(text.encode(errors="replace")) + sum(map(text.count, ESCAPED))
        for text in [*texts, *(outcome.error or ())]
        if text is not None
    )


def _result_row(
    row: Sequence[Any], outcome: Outcome, times: tuple[float, float, float | None]
) -> list[Any]:
    """Return the values of a result; times are reckoned from the database's clock."""
    metadata, first, claimed, now = row[ATTEMPT + 2 :]
    claimed = _time(claimed, datetime.min)
    started, finished, prune_in = times
    began = max(claimed, now + timedelta(seconds=started))
    return [
        *row[:ENQUEUED],
        *(_time(each, now) for each in row[ENQUEUED : ENQUEUED + 2]),
        *row[ENQUEUED + 2 : ATTEMPT + 2],
        metadata if outcome.metadata is None else outcome.metadata,
        _time(first, None) or began,
        began,
        max(claimed, now + timedelta(seconds=finished)),
        outcome.return_value,
        outcome.log,
        None if prune_in is None else now + timedelta(seconds=prune_in),
    ]


def _time(value: Any, other: datetime | None) -> datetime | None:
    """Return a time, or another one for a day 0: the driver has no value for that."""
    return value if isinstance(value, datetime) else other


def _after_claim(task: ClaimedTask) -> ClaimedTask:
    lease = min(task.lease, MOST_COUNTED["lease"] - 1) + 1
    attempt = min(task.attempt, MOST_COUNTED["attempt"] - 1) + 1
    return task._replace(lease=lease, attempt=attempt)
