"""Rows that SQLite stores and nobody can read: put aside, so that they stop no others.

SQLite takes any value in any column. A number that is a text, or a text that is not
UTF-8, makes the statement fail that reads its row, and with it all other rows: no task
would be claimed any more. Only who writes rows by hand makes such ones. So nothing is
asked of the rows beforehand: they are looked for when a statement has failed. Each
becomes a dead letter, with what of it can be read.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

from django_jobs import events
from django_jobs.exceptions import JobsError
from django_jobs.ids import uuid7
from django_jobs.models import DeadLetter
from django_jobs.records import Cycle, Demand, Outcome
from django_jobs.states import Reason
from django_jobs.store.dialect import own_transaction
from django_jobs.store.errors import is_unreadable
from django_jobs.store.portable import PortableStore
from django_jobs.texts import clean
from django_jobs.tracebacks import class_path

T = TypeVar("T")

logger = logging.getLogger("django_jobs")

#: Every column as its bytes, which can be read whatever they are. Only of rows that
#: may be meant: a text that is no plain ASCII is looked at more closely.
SUSPECTS = "SELECT rowid, <columns> FROM {task} WHERE <conditions>"
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


def _remains(raw: bytes) -> str:
    return clean(raw.decode(errors="backslashreplace"), LONGEST)


def _time(raw: bytes) -> datetime:
    return datetime.fromisoformat(raw.decode()).replace(tzinfo=UTC)


_TEXT = Column(("text",), bytes.decode, "{0} GLOB '*[^ -~]*'", _remains)
_INT = Column(("integer",), int, mend=lambda raw: 0)
_TIME = Column(("text",), _time, "julianday({0}) IS NULL")
_ID = Column(("text",), lambda raw: UUID(raw.decode()), "length({0}) <> 32")
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
    if tuple(map(type, row[:13])) not in _CLAIMED or len(row[0]) != 32:
        raise TypeError("the row of a task has values of wrong types")


class Quarantine(PortableStore):
    """Does what reads many rows once more, without those that cannot be read."""

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

    def _past_bad_rows(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except Exception as error:
            if not is_unreadable(error) or not self.put_aside():
                raise
        return work()

    @own_transaction
    def put_aside(self) -> int:
        """Make dead letters of the rows that cannot be read; return how many."""
        columns = [f"typeof({name}), CAST({name} AS BLOB)" for name in COLUMNS]
        text = SUSPECTS.replace("<columns>", ", ".join(columns))
        text = text.replace("<conditions>", " OR ".join(_conditions()))
        count = 0
        for rowid, *values in self.rows(text):
            readable, wrong = _read(zip(values[::2], values[1::2], strict=True))
            if wrong:
                self._bury(rowid, readable, wrong)
                count += 1
        return count

    def _bury(self, rowid: int, values: dict[str, Any], wrong: list[str]) -> None:
        now = self.now()
        for name in ("enqueued_at", "run_after"):
            values[name] = values[name] or now
        if values["id"] is None or self.finished([str(values["id"])]):
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
