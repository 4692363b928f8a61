"""Insertion of new tasks, in the caller's transaction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from datetime import datetime
from typing import Any, TypeVar

from django_jobs.records import NewTask
from django_jobs.store.dialect import as_time, own_transaction
from django_jobs.store.reading import Reading

#: Columns of a new task, in the order of the parameters of a row.
COLUMNS = (
    "id, name, queue_name, order_key, args, kwargs, summary, max_attempts, "
    "time_limit, metadata, headers, expires, state, run_after, enqueued_at, "
    "attempt, crashes, lease, revoke_requested"
)
#: Parameters that are stored as they come, up to ``headers``.
PLAIN = ", ".join(["%s"] * 11)
#: Values that every new task has.
FRESH = "{now}, 0, 0, 0, FALSE"
#: State and time due of a task that is due at once ...
DUE_NOW = "'READY', {now}"
#: ... and of one with a time: never before now, so that the promised order holds ...
DUE_AT = "CASE WHEN %s > {now} THEN 'SCHEDULED' ELSE 'READY' END, {latest}(%s, {now})"
#: ... which may be given in seconds.
DUE_LATER = DUE_AT.replace("%s", "{later[%s]}")
INSERT = f"INSERT INTO {{task}} ({COLUMNS}) VALUES"
RETURNING = "{leave[task]} RETURNING {utc[enqueued_at]}"
#: Never claimed. What is finished and has a task that is so was inserted twice; one
#: that was put back to work has been claimed before.
IS_NEW = "lease = 0"

#: Rows of one statement, and characters of text in them: far below the parameter
#: limits of SQLite and the packet limits of MySQL.
MOST_ROWS = 200
#: Parameters of a row, at most.
MOST_PARAMS = 14
MOST_CHARACTERS = 1024 * 1024

R = TypeVar("R", bound=Sequence[Any])


class Inserting(Reading):
    """Insert tasks as rows of ``VALUES``."""

    #: Can an INSERT return the time it wrote?
    can_return = True
    #: Rows of one statement.
    most_rows = MOST_ROWS

    def insert(self, tasks: Sequence[NewTask], *, again: bool = False) -> datetime:
        return self._insert_again(tasks) if again else self._insert_all(tasks)

    def _insert_all(self, tasks: Sequence[NewTask]) -> datetime:
        if len(tasks) == 1:
            return self._insert(tasks)
        chunks = list(in_chunks(tasks, self.most_rows))
        is_alone = len(chunks) == 1 or self.connection.in_atomic_block
        with nullcontext() if is_alone else self.atomic():
            times = [self._insert(chunk) for chunk in chunks]
        return times[0] if times else self.now()

    @own_transaction
    def _insert_again(self, tasks: Sequence[NewTask]) -> datetime:
        """Insert what is in none of the tables.

        The look comes last. A task that is not finished when we look first may be
        so, and gone from its table, when we insert: then it would be there twice.
        """
        time = self._insert_all(tasks)
        finished = self.finished([task.id for task in tasks])
        self.delete_in("task", finished, IS_NEW)
        return time

    def _insert(self, tasks: Sequence[NewTask]) -> datetime:
        # Asked before, so that nothing happens after the insert that may fail.
        before = None if self.can_return else self.now()
        text, params = self._statement(tasks)
        if before is not None:
            # What is told is what is stored: the result equals the one fetched later.
            text = text.replace(self.NOW, f"TIMESTAMP'{self.to_time(before)}'")
        with self.connection.cursor() as cursor:
            cursor.execute(text, params)
            if before is not None:
                return before
            # All rows are read: SQLite commits after the last one, and of a statement
            # that is left before its end nobody hears that it could not be committed.
            rows = cursor.fetchall()
        return (as_time(rows[0][0]) if rows else None) or self.now()

    def _statement(self, tasks: Sequence[NewTask]) -> tuple[str, list[Any]]:
        """Return one statement for some tasks, and its parameters."""
        rows = ", ".join([self._row(task) for task in tasks])
        params = [value for task in tasks for value in self._params(task)]
        end = RETURNING if self.can_return else "{leave[task]}"
        return f"{self.sql(INSERT)} {rows} {self.sql(end)}", params

    def _row(self, task: NewTask) -> str:
        if task.expires_in is not None:
            expires = "{later[%s]}"
        else:
            expires = "NULL" if task.expires is None else "%s"
        if task.delay is not None:
            due = DUE_LATER
        else:
            due = DUE_NOW if task.run_after is None else DUE_AT
        return self.sql(f"({PLAIN}, {expires}, {due}, {FRESH})")

    def _params(self, task: NewTask) -> list[Any]:
        params = [
            *(self.to_id(task.id), task.name, task.queue_name, -task.priority),
            *(task.args, task.kwargs, task.summary, task.max_attempts),
            *(task.time_limit, task.metadata, task.headers),
        ]
        if task.expires_in is not None:
            params.append(task.expires_in)
        elif task.expires is not None:
            params.append(self.to_time(task.expires))
        if task.delay is not None:
            params += [task.delay] * 2
        elif task.run_after is not None:
            params += [self.to_time(task.run_after)] * 2
        return params


def in_chunks(rows: Sequence[R], most: int) -> Iterator[list[R]]:
    """Yield rows in chunks that are small enough for one statement."""
    chunk: list[R] = []
    size = 0
    for row in rows:
        length = sum(len(value) for value in row if isinstance(value, str))
        if chunk and (len(chunk) >= most or size + length > MOST_CHARACTERS):
            yield chunk
            chunk, size = [], 0
        chunk.append(row)
        size += length
    if chunk:
        yield chunk
