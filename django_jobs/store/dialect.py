"""How statements reach a database: its words, its identifiers, its transactions.

Statements are written once, as templates. ``{task}`` and the other tables stand for
their quoted names, ``{now}`` for the database's time in UTC, ``{later[x]}`` for that
time plus x seconds, ``{until[x]}`` for the seconds from that time to another one,
``{utc[x]}`` for a column read as UTC, NULL if no Python can, ``{latest}`` and
``{earliest}`` for the functions that pick one of two times, ``{by_id[task]}`` for a
table whose rows are sought by a list of ids, ``{running_task}`` for tasks that are
sought by worker, ``{bare_state}`` for the state of rows that are sought by id,
``{alive}`` for what a worker must be to claim, and to go on.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Any, ClassVar, Concatenate, ParamSpec, TypeVar

from django.db import connections, transaction

from django_jobs import models
from django_jobs.store.base import Store
from django_jobs.store.errors import RowsChanged

#: Most identifiers in one list of a statement.
IDS_PER_STATEMENT = 500
#: The largest numbers that the columns of the counters take.
MOST_COUNTED = {"attempt": 2_147_483_647, "lease": 2_147_483_647, "crashes": 32_767}

P = ParamSpec("P")
T = TypeVar("T")
Params = Sequence[Any] | Mapping[str, Any]
D = TypeVar("D", bound="Dialect")


def own_transaction(
    method: Callable[Concatenate[D, P], T],
) -> Callable[Concatenate[D, P], T]:
    """Run a method in one transaction, again if the dialect says that this helps."""

    @functools.wraps(method)
    def wrapper(self: D, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.in_transaction(lambda: method(self, *args, **kwargs))

    return wrapper


class _Word:
    """A function of a template: ``{word[argument]}``."""

    def __init__(self, function: Callable[[str], str]) -> None:
        self._function = function

    def __getitem__(self, argument: str) -> str:
        return self._function(argument)


class Dialect(Store):
    """A store that can send statements; what differs by vendor is named here."""

    #: The database's clock: a time in UTC with microseconds.
    NOW: ClassVar[str]
    #: The later of two times.
    LATEST: ClassVar[str] = "GREATEST"
    #: The earlier of two times, the smaller of two numbers.
    LEAST: ClassVar[str] = "LEAST"
    #: The state as an expression that no index matches: whoever knows the ids of rows
    #: finds them by these, and locks nothing else on the way.
    BARE_STATE: ClassVar[str] = "state || ''"
    #: What tells one row from another, whatever its columns hold.
    KEY: ClassVar[str] = "id"
    #: Lock the rows read, waiting for those that others have locked ...
    LOCK: ClassVar[str] = "FOR UPDATE"
    #: ... or leaving them out.
    LOCK_FREE: ClassVar[str] = "FOR UPDATE SKIP LOCKED"

    def __init__(self, alias: str) -> None:
        super().__init__(alias)
        self._texts: dict[str, str] = {}

    @property
    def connection(self) -> Any:
        """The calling thread's connection to the writer, never to a replica."""
        return connections[self.alias]

    # -- what a vendor says differently --------------------------------------------

    def later(self, seconds: str) -> str:
        """Return SQL for the time so many seconds (an expression) from now."""
        raise NotImplementedError

    def until(self, time: str) -> str:
        """Return SQL for the seconds from now to a time, which is none too far away."""
        raise NotImplementedError

    def utc(self, expression: str) -> str:
        """Return SQL that reads a time as UTC, whatever the session's zone is."""
        return expression

    def leave(self, table: str) -> str:
        """Return SQL that lets an INSERT leave a row alone whose id is there."""
        return "ON CONFLICT (id) DO NOTHING"

    def next_number(self, column: str) -> str:
        """Return SQL for a counter and one more, as far as the column has room.

        One row whose counter is full, which nobody but a hand can have written, would
        make the statement fail for all the others.
        """
        return f"{self.LEAST}({column}, {MOST_COUNTED[column] - 1}) + 1"

    def by_id(self, table: str) -> str:
        """Return SQL for a table whose rows are sought by a list of ids."""
        return table

    def by_running(self, table: str) -> str:
        """Return SQL for the tasks when the running ones of a worker are sought."""
        return table

    def to_id(self, value: str) -> str:
        """Return a canonical id as the database compares it."""
        return value if self.has_native_ids else value.replace("-", "")

    def to_time(self, value: datetime | None) -> Any:
        """Return an aware time as the database stores it."""
        if value is None:
            return None
        naive = value.astimezone(UTC).replace(tzinfo=None)
        return naive.isoformat(" ", "microseconds")

    @functools.cached_property
    def has_native_ids(self) -> bool:
        return bool(self.connection.features.has_native_uuid_field)

    def atomic(self) -> AbstractContextManager[None]:
        """Return a transaction, or a savepoint of the caller's."""
        return transaction.atomic(using=self.alias)

    def in_transaction(self, work: Callable[[], T]) -> T:
        """Do some work in one transaction."""
        with self.atomic():
            return work()

    # -- statements ------------------------------------------------------------------

    def sql(self, template: str) -> str:
        """Return a template in the words of this database."""
        text = self._texts.get(template)
        if text is None:
            text = self._texts[template] = template.format(**self._words).strip()
        return text

    @functools.cached_property
    def _words(self) -> dict[str, Any]:
        tables = {
            "task": models.Task,
            "result": models.Result,
            "dead_letter": models.DeadLetter,
            "attempts": models.Attempt,
            "worker": models.Worker,
            "maintenance": models.Maintenance,
        }
        quote = self.connection.ops.quote_name
        return {
            **{word: quote(model._meta.db_table) for word, model in tables.items()},
            "release": quote("release"),  # a reserved word of MySQL
            "now": self.NOW,
            "now_utc": self.utc(self.NOW),
            "latest": self.LATEST,
            "earliest": self.LEAST,
            "next": _Word(self.next_number),
            "key": self.KEY,
            "lock": self.LOCK,
            "lock_free": self.LOCK_FREE,
            "bare_state": self.BARE_STATE,
            "alive": self._alive,
            "later": _Word(self.later),
            "until": _Word(self.until),
            "utc": _Word(self.utc),
            "leave": _Word(lambda word: self.leave(self._words[word])),
            "by_id": _Word(lambda word: self.by_id(self._words[word])),
            "running_task": self.by_running(quote(models.Task._meta.db_table)),
        }

    @property
    def _alive(self) -> str:
        # Where no other can write, a lease may run out while a task of our own keeps
        # the database locked. Whoever takes our tasks marks the row, or deletes it.
        is_not_taken = "state <> 'dead'"
        if self.has_single_writer:
            return is_not_taken
        return f"{is_not_taken} AND expires_at > {self.NOW}"

    def run(self, template: str, params: Params = ()) -> int:
        """Execute a statement; return how many rows it touched."""
        return self._run(self.sql(template), params)

    def run_many(self, template: str, rows: Sequence[Sequence[Any]]) -> int:
        """Execute a statement once per row of parameters; return the rows touched."""
        if not rows:
            return 0
        with self.connection.cursor() as cursor:
            cursor.executemany(self.sql(template), rows)
            return int(cursor.rowcount)

    def rows(self, template: str, params: Params = ()) -> list[Any]:
        """Execute a query; return its rows."""
        return self._rows(self.sql(template), params)

    def hot_rows(self, template: str, params: Sequence[Any] = ()) -> list[Any]:
        """Execute a query that every cycle of a worker needs."""
        return self.rows(template, params)

    def run_in(
        self, template: str, ids: Iterable[str], params: Sequence[Any] = ()
    ) -> int:
        """Execute a statement that ends in ``IN`` for a list of ids, in chunks."""
        return sum(
            self._run(f"{self.sql(template)} {marks}", [*params, *chunk])
            for marks, chunk in self.chunks(ids)
        )

    def delete_in(
        self,
        table: str,
        ids: Iterable[str],
        guard: str = "TRUE",
        params: Sequence[Any] = (),
    ) -> int:
        """Delete rows by their ids, if they are so; return how many there were."""
        return self.run_in(
            f"DELETE FROM {{{table}}} WHERE {guard} AND id IN", ids, params
        )

    def rows_in(
        self,
        template: str,
        ids: Iterable[str],
        params: Sequence[Any] = (),
        end: str = "",
    ) -> list[Any]:
        """Execute a query that ends in ``IN``, a list of ids and ``end``."""
        return [
            row
            for marks, chunk in self.chunks(ids)
            for row in self._rows(
                f"{self.sql(template)} {marks} {self.sql(end)}", [*params, *chunk]
            )
        ]

    def expect(self, count: int, *touched: int) -> None:
        """Raise RowsChanged unless each statement touched so many rows."""
        if any(each != count for each in touched):
            raise RowsChanged(f"{count} rows were to be touched, not {touched}")

    # Texts with a list in them come in too many lengths to be remembered.

    def _run(self, text: str, params: Params) -> int:
        with self.connection.cursor() as cursor:
            cursor.execute(text, params)
            return int(cursor.rowcount)

    def _rows(self, text: str, params: Params) -> list[Any]:
        with self.connection.cursor() as cursor:
            cursor.execute(text, params)
            found: list[Any] = cursor.fetchall()
            return found

    def chunks(self, ids: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
        """Yield lists of ids as the database knows them, with their placeholders."""
        # Sorted, so that whoever locks several rows locks them in one order.
        ordered = sorted({self.to_id(each) for each in ids})
        for start in range(0, len(ordered), IDS_PER_STATEMENT):
            chunk = ordered[start : start + IDS_PER_STATEMENT]
            yield f"({', '.join(['%s'] * len(chunk))})", chunk


def as_id(value: Any) -> str:
    """Return an id that was read as a canonical string of 36 characters."""
    text = str(value)
    if len(text) == 32:
        parts = text[:8], text[8:12], text[12:16], text[16:20], text[20:]
        return "-".join(parts)
    return text


def as_time(value: Any) -> datetime | None:
    """Return a time that was read (in UTC) as an aware datetime.

    None for what Python has no value for: a day 0 of MySQL, on SQLite anything at all.
    """
    try:
        time = datetime.fromisoformat(value) if isinstance(value, str) else value
        return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    except (AttributeError, OverflowError, ValueError):
        return None


def as_text(value: Any) -> str:
    """Return a text that was read, whatever SQLite has in its place."""
    return value if isinstance(value, str) else "" if value is None else str(value)


def as_int(value: Any) -> int:
    """Return a number that was read; 0 for what SQLite may have in its place."""
    return value if isinstance(value, int) else 0
