"""The store under test: its clock stands still, and it tells who waits for a lock."""

from __future__ import annotations

import random
import re
import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

from django.db import connection
from django.db.backends.signals import connection_created
from django.test import override_settings

from django_jobs.store import verdicts
from django_jobs.store.mysql import MySQLStore
from django_jobs.store.portable import PortableStore
from django_jobs.store.postgresql import PostgreSQLStore
from django_jobs.store.sqlite import SQLiteStore
from tests.simulation.clock import Clock
from tests.statements import Call

#: Short enough for retentions and budgets to be used up.
SETTINGS = {
    "CRASH_BUDGET": 2,
    "RESULT_RETENTION": 50,
    "DEAD_LETTER_RETENTION": 100,
    "UNKNOWN_TASK_TIMEOUT": 100,
}
#: What atomic tasks write: the id and the lease of the run.
EFFECTS = "simulation_effect"
TABLES = ("task", "result", "deadletter", "attempt", "worker", "maintenance")
#: A statement that changes something when no transaction is open.
WRITES = re.compile(r"\s*(BEGIN|INSERT|UPDATE|DELETE|WITH)", re.IGNORECASE)


class Database:
    """What the simulation needs of a vendor; this one is SQLite."""

    #: Does a call return at once, or never because somebody holds a lock?
    blocks = False

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.store: PortableStore = self.new_store()

    def new_store(self) -> PortableStore:
        return _SQLiteStore(connection.alias)

    # -- life ------------------------------------------------------------------------

    def prepare(self) -> None:
        """Make what is not there yet."""
        run(f"DROP TABLE IF EXISTS {EFFECTS}")
        run(
            f"CREATE TABLE {EFFECTS} AS "
            "SELECT id AS task_id, lease FROM django_jobs_task WHERE lease < 0"
        )

    def tidy_up(self) -> None:
        """Leave nothing to the tests that use the database after this."""
        self.empty()
        run(f"DROP TABLE {EFFECTS}")

    def empty(self) -> None:
        """Forget all that an earlier seed left."""
        for table in TABLES:
            run(f"DELETE FROM django_jobs_{table}")
        run(f"DELETE FROM {EFFECTS}")

    def vary(self, dice: random.Random) -> None:
        """Choose between ways to do the same."""

    def connected(self, raw: Any) -> None:
        """Have a new connection tell our time."""

        def simulated_now(shift: float | None) -> str | None:
            if shift is None:
                return None
            time = self.clock.at(shift).replace(tzinfo=None)
            return time.isoformat(" ", "microseconds")

        raw.create_function("simulated_now", 1, simulated_now, deterministic=True)

    def warm_up(self, wrapper: Any) -> None:
        """Have a new connection ask what it asks once."""
        for name in ("can_return_columns_from_insert", "has_native_uuid_field"):
            getattr(wrapper.features, name)

    def on_turn(self, raw: Any) -> None:
        """Do what a connection needs before its next call."""

    # -- transactions ----------------------------------------------------------------

    def is_piped(self, raw: Any) -> bool:
        """Does it collect statements, to send them together?"""
        return False

    def in_transaction(self, raw: Any) -> bool:
        try:
            return bool(raw.in_transaction)
        except sqlite3.ProgrammingError:  # it is closed
            return False

    def changes(self, raw: Any) -> int | None:
        """Return a number that grows when this connection changes a row, or None."""
        try:
            return int(raw.total_changes)
        except sqlite3.ProgrammingError:
            return None

    def needs_turn_to_write(self, call: Call) -> bool:
        """Would this call wait for another writer, if there is one?"""
        if call.verb != "execute" or self.in_transaction(call.raw):
            return False
        return bool(WRITES.match(call.text))

    def is_waiting(self, raw: Any) -> bool:
        """Does this connection wait for a lock of another one?"""
        return False

    def can_lose_answer(self, call: Call) -> bool:
        """Is it possible that a call is made and nobody learns of it?

        Here there is no way on which the answer could be lost; but the process may
        die, or another error come up, before what was committed is known.
        """
        return call.verb == "commit" or self.in_transaction(call.raw)

    def cut(self, raw: Any) -> None:
        """End a connection as if its process or the network were gone."""
        raw.rollback()  # what the server does then, but we know when
        raw.close()


class _SQLiteStore(SQLiteStore):
    NOW = "simulated_now(0)"

    def later(self, seconds: str) -> str:
        return f"simulated_now({seconds})"


class _PostgreSQL(Database):
    """PostgreSQL: its clock is hidden by a function of ours."""

    blocks = True

    def new_store(self) -> PortableStore:
        return _PostgreSQLStore(connection.alias)

    def vary(self, dice: random.Random) -> None:
        self.store.is_pipelining = dice.random() < 0.5  # type: ignore[attr-defined]

    def prepare(self) -> None:
        super().prepare()
        run("DROP SCHEMA IF EXISTS simulation CASCADE")
        run("CREATE SCHEMA simulation")
        run("CREATE TABLE simulation.clock AS SELECT now() AS now")
        run(
            "CREATE FUNCTION simulation.statement_timestamp() RETURNS timestamptz "
            "LANGUAGE sql STABLE AS 'SELECT now FROM simulation.clock'"
        )
        self.clock.publish = self._publish

    def tidy_up(self) -> None:
        super().tidy_up()
        run("DROP SCHEMA simulation CASCADE")

    def _publish(self) -> None:
        run("UPDATE simulation.clock SET now = %s", self.clock.now)

    def can_lose_answer(self, call: Call) -> bool:
        return True

    def connected(self, raw: Any) -> None:
        raw.execute("SET search_path = simulation, pg_catalog, public")
        raw.execute("SET synchronous_commit = off")
        raw.execute("SET deadlock_timeout = '2ms'")

    def warm_up(self, wrapper: Any) -> None:
        super().warm_up(wrapper)
        self.store._threshold(wrapper.connection)  # type: ignore[attr-defined]

    def is_piped(self, raw: Any) -> bool:
        return bool(raw.pgconn.pipeline_status)

    def in_transaction(self, raw: Any) -> bool:
        return raw.info.transaction_status in (1, 2, 3)  # active, open, failed

    def changes(self, raw: Any) -> int | None:
        return None

    def needs_turn_to_write(self, call: Call) -> bool:
        return False

    def is_waiting(self, raw: Any) -> bool:
        try:
            pid = raw.info.backend_pid
        except connection.Database.OperationalError:  # it is closed by now
            return False
        return bool(run("SELECT cardinality(pg_blocking_pids(%s))", pid)[0][0])


class _PostgreSQLStore(PostgreSQLStore):
    #: In a pipeline, or statement by statement as with psycopg2?
    is_pipelining = True

    @property
    def _can_pipeline(self) -> bool:
        return self.is_pipelining and super()._can_pipeline


class _MySQL(Database):
    """MySQL and MariaDB: each session is told the time."""

    blocks = True

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self._told: dict[int, float] = {}

    def new_store(self) -> PortableStore:
        return _MySQLStore(connection.alias)

    def empty(self) -> None:
        super().empty()
        self.store._last_queues = []  # type: ignore[attr-defined]

    def can_lose_answer(self, call: Call) -> bool:
        return True

    def cut(self, raw: Any) -> None:
        raw.rollback()
        raw._force_close()  # as the driver does when it finds it lost

    def connected(self, raw: Any) -> None:
        self._told.pop(id(raw), None)

    def on_turn(self, raw: Any) -> None:
        if self._told.get(id(raw)) != self.clock.seconds:
            self._told[id(raw)] = self.clock.seconds
            raw.query(f"SET timestamp = {self.clock.now.timestamp():.6f}")

    def in_transaction(self, raw: Any) -> bool:
        return bool(raw.server_status & 1)

    def changes(self, raw: Any) -> int | None:
        return None

    def needs_turn_to_write(self, call: Call) -> bool:
        return False

    def is_waiting(self, raw: Any) -> bool:
        # The tables about locks are a copy that may be a tenth of a second old.
        status = run("SHOW ENGINE INNODB STATUS")[0][2]
        session = f"thread id {raw.thread_id()},"
        return any(
            session in part and "LOCK WAIT" in part
            # What comes before the first tells of deadlocks that are over.
            for part in status.split("---TRANSACTION ")[1:]
        )


class _MySQLStore(MySQLStore):
    def pause(self) -> None:
        """Wait for nothing: whose turn it is next is decided elsewhere."""


VENDORS = {"sqlite": Database, "postgresql": _PostgreSQL, "mysql": _MySQL}


def run(text: str, *params: Any) -> list[Any]:
    """Execute a statement on the calling thread's connection."""
    with connection.cursor() as cursor:
        cursor.execute(text, params or None)
        return list(cursor.fetchall()) if cursor.description else []


@contextmanager
def opened(clock: Clock) -> Iterator[Database]:
    """Have the connections of the calling thread, and new ones, tell our time."""
    database = VENDORS[connection.vendor](clock)

    def connected(sender: Any, connection: Any, **kwargs: Any) -> None:
        database.connected(connection.connection)

    with ExitStack() as stack:
        for context in _contexts(clock):
            stack.enter_context(context)
        database.prepare()
        connection_created.connect(connected)
        connection.close()
        try:
            yield database
        finally:
            connection_created.disconnect(connected)
            connection.close()
            database.tidy_up()


def _contexts(clock: Clock) -> list[AbstractContextManager[Any]]:
    return [
        override_settings(DJANGO_JOBS=SETTINGS),
        # Workers and their outcomes live by the same clock.
        patch.object(verdicts, "time", clock),
    ]
