"""Rows that SQLite stores and nobody can read: put aside, so that they stop no others.

SQLite takes any value in any column. A number that is a text, or a text that is not
UTF-8, makes the statement fail that reads its row, and with it all other rows: no task
would be claimed any more. Only who writes rows by hand makes such ones. So nothing is
asked of the rows beforehand: they are looked for when a statement has failed. Each
becomes a dead letter, with what of it can be read. Whatever only shows rows shows what
can be read of them.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

from django.db.utils import OperationalError

from django_jobs import events
from django_jobs.exceptions import JobsError
from django_jobs.ids import uuid7
from django_jobs.models import DeadLetter
from django_jobs.records import Cycle, Demand, Outcome
from django_jobs.states import Reason
from django_jobs.store.dialect import IDS_PER_STATEMENT, Params, own_transaction
from django_jobs.store.errors import is_no_text, is_unreadable
from django_jobs.store.portable import BY_ID, PortableStore
from django_jobs.texts import clean
from django_jobs.tracebacks import class_path

T = TypeVar("T")

logger = logging.getLogger("django_jobs")

#: Every column as its bytes, which can be read whatever they are. Only of rows that
#: may be meant: a text that is no plain ASCII is looked at more closely.
SUSPECTS = """
SELECT rowid, <columns> FROM {task} WHERE rowid > %s AND rowid <= %s AND (<conditions>)
"""
#: Where a slice of the table ends.
END_OF_SLICE = """
SELECT MAX(rowid) FROM (
    SELECT rowid FROM {task} WHERE rowid > %s ORDER BY rowid LIMIT %s) s
"""
#: The start of the table.
START = -(2**63)
#: Rows that are looked at in one transaction, which others wait for: 0.1 seconds.
SLICE = 10_000
#: After so many seconds the rest is left to the next time.
LONGEST_LOOK = 1.0
#: Does a text hold a time, by SQLite and by Python? Else it is none, or of a day that
#: there is not, as the 31st of November, which SQLite takes for the next one.
IS_TIME = "date({0}) IS substr({0}, 1, 10)"
TIME = re.compile(r"\d{4}-\d\d-\d\d([ T]\d\d:\d\d(:\d\d(\.\d+)?)?)?", re.ASCII)
#: The first time due that can be read, past all others.
FIRST_READABLE_DUE = f"""
SELECT run_after FROM {{task}}
WHERE state = 'SCHEDULED' AND {IS_TIME.format("run_after")} ORDER BY run_after LIMIT 1
"""
#: Rows by the number that SQLite gives them: their ids may be odd.
DELETE_ATTEMPTS = """
DELETE FROM {attempts}
WHERE task_id IN (SELECT id FROM {%(table)s} WHERE rowid IN (<rows>))
"""
DELETE_FINISHED = "DELETE FROM {%(table)s} WHERE %(guard)s AND rowid IN (<rows>)"
DELETE_ROW = "DELETE FROM {task} WHERE rowid = %s"
#: So much is kept of what cannot be read, in bytes.
LONGEST = 64 * 1024


class Column(NamedTuple):
    """What belongs into a column: one of these types, and what ``read`` can read."""

    types: tuple[str, ...]
    #: Raises ValueError for anything else.
    read: Callable[[bytes], Any]
    #: Tells in SQL which values of the right type may be something else.
    suspect: str = "FALSE"
    #: Makes something of what cannot be read.
    mend: Callable[[bytes], Any] = lambda raw: None


def _escaped(raw: bytes) -> str:
    return raw.decode(errors="backslashreplace")


def _remains(raw: bytes) -> str:
    return clean(_escaped(raw), LONGEST)


def _time(raw: bytes) -> datetime:
    text = raw.decode()
    if not TIME.fullmatch(text):
        raise ValueError(text)
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


#: The form of an id in its column.
is_stored_id = re.compile("[0-9a-f]{32}").fullmatch


def _id(raw: bytes) -> UUID:
    text = raw.decode()
    if not is_stored_id(text):
        raise ValueError(text)
    return UUID(text)


def _id_of_another_form(raw: bytes) -> UUID | None:
    try:
        return UUID(raw.decode())
    except ValueError:
        return None


_TEXT = Column(("text",), bytes.decode, "{0} GLOB '*[^ -~]*'", _remains)
_INT = Column(("integer",), int, mend=lambda raw: 0)
_TIME = Column(("text",), _time, f"NOT {IS_TIME}")
_ODD_ID = "(length({0}) <> 32 OR {0} GLOB '*[^0-9a-f]*')"
_ID = Column(("text",), _id, _ODD_ID, _id_of_another_form)
COLUMNS = {
    **dict.fromkeys(("id", "worker_id"), _ID),
    **dict.fromkeys(("name", "queue_name", "summary", "args", "kwargs"), _TEXT),
    **dict.fromkeys(("metadata", "headers"), _TEXT),
    **dict.fromkeys(("order_key", "lease", "attempt", "crashes", "max_attempts"), _INT),
    **dict.fromkeys(("enqueued_at", "run_after"), _TIME),
    **dict.fromkeys(("started_at", "last_attempted_at"), _TIME),
    "time_limit": Column(("real", "integer"), float),
}
#: Lengths of the columns that have one.
_LENGTHS = {"name": 200, "queue_name": 100, "summary": 200}
_CLAIMED_TYPES = (str, int, int, int, int, str, str, int, str, str, str, str)
_CLAIMED = frozenset((*_CLAIMED_TYPES, last) for last in (float, int, type(None)))


def check_claimed(row: Sequence[Any]) -> None:
    """Raise TypeError unless a row of ``CLAIMED`` has what belongs into its columns."""
    if tuple(map(type, row[:13])) not in _CLAIMED or not is_stored_id(row[0]):
        raise TypeError("the row of a task has values of wrong types")


class Quarantine(PortableStore):
    """Does what reads many rows once more, without those that cannot be read."""

    KEY = "rowid"
    #: How far the last look got, if it was not to the end.
    _seen_to = START

    def cycle(
        self,
        worker_id: str,
        outcomes: Sequence[Outcome],
        demand: Demand | None,
        *,
        again: bool = False,
    ) -> Cycle:
        work = partial(super().cycle, worker_id, outcomes, demand, again=again)
        return self._past_bad_rows(work)

    def rescue(self, limit: int = 500) -> list[str]:
        return self._past_bad_rows(partial(super().rescue, limit))

    def adopt(
        self, within: float, is_ours: Callable[[str, str], bool], limit: int = 500
    ) -> int:
        return self._past_bad_rows(partial(super().adopt, within, is_ours, limit))

    def sign_off(self, worker_id: str) -> int:
        return self._past_bad_rows(partial(super().sign_off, worker_id))

    def next_due(self) -> float | None:
        try:
            return super().next_due()
        except TypeError:  # the first one has no time that can be read
            self.put_aside()
            return self._next_due(FIRST_READABLE_DUE)

    def _delete_attempts(self, table: str, keys: Sequence[Any]) -> None:
        self._run_by_rows(DELETE_ATTEMPTS % {"table": table}, keys)

    def _delete_finished(
        self, table: str, keys: Sequence[Any], guard: str, age: Sequence[float]
    ) -> int:
        template = DELETE_FINISHED % {"table": table, "guard": guard}
        return self._run_by_rows(template, keys, age)

    def _run_by_rows(
        self, template: str, rows: Sequence[int], params: Sequence[Any] = ()
    ) -> int:
        """Execute a statement for rows of these numbers, in chunks."""
        count = 0
        for start in range(0, len(rows), IDS_PER_STATEMENT):
            chunk = rows[start : start + IDS_PER_STATEMENT]
            marks = ", ".join(["%s"] * len(chunk))
            text = self.sql(template).replace("<rows>", marks)
            count += self._run(text, [*params, *chunk])
        return count

    def _rows(self, text: str, params: Params) -> list[Any]:
        try:
            return super()._rows(text, params)
        except OperationalError as error:
            if not is_no_text(error):
                raise
        with self._escaping():
            return super()._rows(text, params)

    @contextmanager
    def _escaping(self) -> Iterator[None]:
        """Read texts that are none with escapes in place of what cannot be read."""
        raw = self.connection.connection
        before, raw.text_factory = raw.text_factory, _escaped
        try:
            yield
        finally:
            raw.text_factory = before

    def _past_bad_rows(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except Exception as error:
            if not is_unreadable(error) or not self.put_aside():
                raise
        return work()

    def put_aside(self) -> int:
        """Make dead letters of the rows that cannot be read; return how many.

        A slice of the table at a time, and only for a while: whoever cannot go on asks
        again, and then the look goes on where it was left.
        """
        until, count = time.monotonic() + LONGEST_LOOK, 0
        while True:
            found, self._seen_to = self._put_aside(self._seen_to)
            count += found
            if self._seen_to == START or time.monotonic() > until:
                return count

    @own_transaction
    def _put_aside(self, start: int) -> tuple[int, int]:
        """Return how many of a slice were put aside, and where the next one starts."""
        [(end,)] = self.rows(END_OF_SLICE, [start, SLICE])
        if end is None:
            return 0, START
        columns = [f"typeof({name}), CAST({name} AS BLOB)" for name in COLUMNS]
        text = SUSPECTS.replace("<columns>", ", ".join(columns))
        text = text.replace("<conditions>", " OR ".join(_conditions()))
        count = 0
        for rowid, *values in self.rows(text, [start, end]):
            readable, wrong = _read(zip(values[::2], values[1::2], strict=True))
            if wrong:
                self._bury(rowid, readable, wrong)
                count += 1
        return count, end

    def _bury(self, rowid: int, values: dict[str, Any], wrong: list[str]) -> None:
        now = self.now()
        for name in ("enqueued_at", "run_after"):
            values[name] = values[name] or now
        if values["id"] is None or self._is_taken(values["id"], "id" in wrong):
            values["id"] = uuid7()
        words = f"these columns of the row cannot be read: {', '.join(wrong)}"
        letter = DeadLetter(
            **values,
            reason=Reason.CORRUPT,
            exception_class=class_path(JobsError),
            message=words,
            finished_at=now,
        )
        letter.save(using=self.alias, force_insert=True)
        self.run(DELETE_ROW, [rowid])
        _say(letter)

    def _is_taken(self, task_id: UUID, is_of_another_form: bool) -> bool:
        """Tell whether another row has this id: that of a task is not in its form."""
        is_live = is_of_another_form and bool(self.rows_in(BY_ID, [str(task_id)]))
        return is_live or bool(self.finished([str(task_id)]))


def _say(letter: DeadLetter) -> None:
    events.log(
        logger,
        logging.ERROR,
        "row_put_aside",
        task=letter.name,
        task_id=str(letter.pk),
        error_message=letter.message,
    )


def _conditions() -> Iterator[str]:
    """Yield SQL for each column: it may hold something else than what belongs there."""
    for name, column in COLUMNS.items():
        types = ", ".join(f"'{each}'" for each in ("null", *column.types))
        suspect = column.suspect.format(name)
        yield f"typeof({name}) NOT IN ({types}) OR ({name} IS NOT NULL AND {suspect})"


def _read(values: Iterable[tuple[str, bytes]]) -> tuple[dict[str, Any], list[str]]:
    """Return what can be made of a row, and the columns that cannot be read."""
    made, wrong = dict[str, Any](), list[str]()
    for (name, column), (kind, raw) in zip(COLUMNS.items(), values, strict=True):
        try:
            made[name] = None if raw is None else column.read(raw)
            is_right = kind in ("null", *column.types)
        except (ValueError, OverflowError):
            is_right = False
        if not is_right:
            wrong.append(name)
            made[name] = column.mend(raw)
        if isinstance(made[name], str):
            made[name] = made[name][: _LENGTHS.get(name)]
    return made, wrong
