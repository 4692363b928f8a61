"""Reading: one task, the clock, what is due, how much there is."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, cast

from django_jobs.records import ErrorRecord, TaskRecord
from django_jobs.states import State
from django_jobs.store.dialect import Dialect, as_id, as_int, as_text, as_time

#: What all three tables tell of a task.
SHARED = (
    "id, {state}, name, queue_name, order_key, args, kwargs, metadata, max_attempts, "
    "attempt, crashes, {{utc[enqueued_at]}}, {{utc[run_after]}}, {{utc[started_at]}}, "
    "{{utc[last_attempted_at]}}, worker_id"
)
#: A task, from whichever table it is in. One statement, so that a task that moves
#: meanwhile is seen once.
FETCH = f"""
SELECT {SHARED.format(state="state")}, NULL, NULL, revoke_requested, '', progress
FROM {{task}} WHERE id = %s
UNION ALL
SELECT {SHARED.format(state="state")}, {{utc[finished_at]}}, return_value, FALSE, '',
    NULL
FROM {{result}} WHERE id = %s
UNION ALL
SELECT {SHARED.format(state="'FAILED'")}, {{utc[finished_at]}}, NULL, FALSE, reason,
    NULL
FROM {{dead_letter}} WHERE id = %s
"""
#: The runs that did not succeed and count, in their order; since the last requeue.
ATTEMPTS = """
SELECT worker_id, exception_class, message, traceback, fingerprint FROM {attempts}
WHERE task_id = %s AND requeued_at IS NULL AND verdict IN ('failed', 'retry', 'crashed')
ORDER BY number, id
"""
#: How long it is to the next time due. Neither before now nor far from it: a database
#: takes times that Python cannot read (infinite, before Christ, of the month 0), and
#: one of them would hide all the others.
NEXT_DUE = """
SELECT {until[due]} FROM (
    SELECT {latest}({earliest}(first, {later[%s]}), {now}) AS due FROM (
        SELECT (<first>) AS first
    ) f WHERE first IS NOT NULL) d
"""
FIRST_DUE = "SELECT MIN(run_after) FROM {task} WHERE state = 'SCHEDULED'"
#: Who asks for the next time due looks again before, in seconds.
FAR_AWAY = 365 * 86_400.0
#: Which of some tasks are finished.
RESULTS_AMONG = "SELECT id FROM {by_id[result]} WHERE id IN"
DEAD_LETTERS_AMONG = "SELECT id FROM {by_id[dead_letter]} WHERE id IN"
#: Their places among the times of a record.
_STARTED, _LAST_ATTEMPTED = 2, 3
DEPTHS = "SELECT queue_name, state, COUNT(*) FROM {task} GROUP BY queue_name, state"


class Reading(Dialect):
    """Queries that change nothing."""

    def fetch(self, task_id: str) -> TaskRecord | None:
        key = self.to_id(task_id)
        rows = self.rows(FETCH, [key] * 3)
        if not rows:
            return None
        attempts = [] if _is_clean(rows[0]) else self.rows(ATTEMPTS, [key])
        return _as_record(rows[0], attempts)

    def finished(self, ids: Sequence[str]) -> list[str]:
        """Return which of some tasks are results or dead letters."""
        tables = (RESULTS_AMONG, DEAD_LETTERS_AMONG)
        return [as_id(row[0]) for table in tables for row in self.rows_in(table, ids)]

    def now(self) -> datetime:
        return cast(datetime, as_time(self.rows("SELECT {now_utc}")[0][0]))

    def next_due(self) -> float | None:
        return self._next_due(FIRST_DUE)

    def _next_due(self, first: str) -> float | None:
        """Return the seconds to a time that a query finds, None if it finds none."""
        for (seconds,) in self.rows(NEXT_DUE.replace("<first>", first), [FAR_AWAY]):
            return max(0.0, float(seconds))
        return None

    def depths(self) -> dict[tuple[str, str], int]:
        rows = self.rows(DEPTHS)
        return {(as_text(queue), as_text(state)): count for queue, state, count in rows}


def _is_clean(row: Sequence[Any]) -> bool:
    """Did no run fail so far? There was none, or the first one runs or succeeded."""
    is_first = row[9] == 1 and row[1] in (State.RUNNING, State.SUCCESSFUL)
    return is_first or row[9] == 0


def _as_record(row: Sequence[Any], attempts: Sequence[Sequence[Any]]) -> TaskRecord:
    attempt = as_int(row[9])
    workers = [as_id(each[0]) for each in attempts if each[0] is not None]
    if row[15] is not None and len(attempts) < attempt:
        workers.append(as_id(row[15]))  # of the run that has no record of its own
    times = [as_time(each) for each in [*row[11:15], row[16]]]
    if times[_STARTED] is None and row[1] == State.RUNNING:
        times[_STARTED] = times[_LAST_ATTEMPTED]  # the first run, under way
    errors = [ErrorRecord._make(map(as_text, each[1:])) for each in attempts]
    texts = [None if row[place] is None else as_text(row[place]) for place in (17, 20)]
    return TaskRecord._make(
        [
            *(as_id(row[0]), *map(as_text, row[1:4]), -as_int(row[4])),
            *(*map(as_text, row[5:8]), as_int(row[8]), attempt, as_int(row[10])),
            *(*times, texts[0], bool(row[18]), as_text(row[19])),
            *(workers, errors, texts[1]),
        ]
    )
