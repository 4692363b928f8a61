"""Migrations: beside running workers, forwards and backwards, again after a failure."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection, connections, migrations, models
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.operations.base import Operation
from django.db.models import NOT_PROVIDED
from django.db.utils import DatabaseError
from pytest_django import DjangoDbBlocker

from django_jobs.migrations import _beside_workers
from django_jobs.migrations._beside_workers import BesideWorkers
from django_jobs.models import Task
from tests.scratch import SCRATCH, migrate, scratch_database

IS_SERVER = connection.vendor != "sqlite"
needs_server = pytest.mark.skipif(not IS_SERVER, reason="not on sqlite")
OURS = [
    migration
    for (app, _), migration in sorted(MigrationLoader(None).disk_migrations.items())
    if app == "django_jobs"
]
NAMES = [migration.name for migration in OURS]
#: Those of an installation; no worker runs before they are done.
FIRST = NAMES[:3]
#: What takes a lock of a table for itself.
CHANGES = (
    migrations.AddField,
    migrations.AlterField,
    migrations.RemoveField,
    migrations.AddIndex,
    migrations.AddConstraint,
)
#: What code of before knows nothing of, and need not.
ADDITIONS = (migrations.CreateModel, migrations.AddIndex)


@pytest.fixture
def scratch(django_db_blocker: DjangoDbBlocker, tmp_path: Path) -> Iterator[Any]:
    """The connection to a database without tables."""
    with django_db_blocker.unblock(), scratch_database(tmp_path):
        yield connections[SCRATCH]


# -- their form ----------------------------------------------------------------------


def test_the_module_beside_the_migrations_is_none() -> None:
    assert NAMES[:2] == ["0001_initial", "0002_postgresql_storage"]
    assert all(name[:4].isdecimal() for name in NAMES)


@pytest.mark.parametrize("migration", OURS, ids=NAMES)
def test_every_migration_begins_and_ends_beside_workers(migration: Any) -> None:
    first, *_, last = migration.operations
    assert isinstance(first, BesideWorkers)
    assert isinstance(last, BesideWorkers)


@pytest.mark.parametrize("migration", OURS, ids=NAMES)
def test_a_later_migration_changes_one_table(migration: Any) -> None:
    # With the lock of one it would wait for that of another, which a worker may hold
    # that waits for the first.
    changes = [each for each in migration.operations if isinstance(each, CHANGES)]
    tables = {getattr(each, "model_name_lower", each.model_name) for each in changes}
    assert migration.name in FIRST or len(tables) <= 1


def can_be_ignored(operation: Operation) -> bool:
    """May code that knows nothing of an operation go on after it?"""
    if isinstance(operation, migrations.AddField):
        return operation.field.null or operation.field.db_default is not NOT_PROVIDED
    return isinstance(operation, (BesideWorkers, *ADDITIONS))


@pytest.mark.parametrize("migration", OURS, ids=NAMES)
def test_a_later_migration_only_adds(migration: Any) -> None:
    others = [each for each in migration.operations if not can_be_ignored(each)]
    assert migration.name in FIRST or others == []


@pytest.mark.parametrize(
    ("operation", "is_harmless"),
    [
        (migrations.AddField("task", "a", models.IntegerField(null=True)), True),
        (migrations.AddField("task", "a", models.IntegerField(db_default=1)), True),
        (migrations.AddField("task", "a", models.IntegerField(default=1)), False),
        (migrations.AddField("task", "a", models.IntegerField()), False),
        (migrations.RemoveField("task", "summary"), False),
        (migrations.RenameField("task", "summary", "title"), False),
        (migrations.AlterField("task", "summary", models.TextField()), False),
        (migrations.DeleteModel("operation"), False),
    ],
    ids=lambda value: value.describe() if isinstance(value, Operation) else "",
)
def test_what_old_code_can_ignore_is_told_from_what_it_cannot(
    operation: Operation, is_harmless: bool
) -> None:
    assert can_be_ignored(operation) is is_harmless


@pytest.mark.parametrize("is_backwards", [False, True])
def test_sqlmigrate_tells_the_limit(scratch: Any, is_backwards: bool) -> None:
    limits = {"postgresql": "'lock_timeout', '5s'", "mysql": "lock_wait_timeout = 5"}
    told = {name: sql_of(name, is_backwards) for name in NAMES}
    if scratch.vendor == "postgresql":
        # It has no transaction, and nothing to do there.
        assert limits["postgresql"] not in told.pop("0003_mysql_names")
    times = 1 if scratch.vendor in limits else 0
    limit = limits.get(scratch.vendor, "timeout")
    assert [text.count(limit) for text in told.values()] == [times] * len(told)


def sql_of(name: str, is_backwards: bool) -> str:
    text, options = io.StringIO(), {"backwards": is_backwards, "database": SCRATCH}
    call_command("sqlmigrate", "django_jobs", name, stdout=text, **options)
    return text.getvalue()


def test_the_plan_tells_the_limit(scratch: Any) -> None:
    output = io.StringIO()
    call_command("migrate", "django_jobs", database=SCRATCH, plan=True, stdout=output)
    assert output.getvalue().count("for at most 5 s") == 2 * len(NAMES)


def test_they_are_undone_and_done_again(scratch: Any) -> None:
    migrate()
    newest = layout(scratch)
    migrate("zero")
    assert layout(scratch) == {}
    for target in (NAMES[0], NAMES[-1], NAMES[0], NAMES[-1]):
        migrate(target)
    assert layout(scratch) == newest


def layout(scratch: Any) -> dict[str, Any]:
    """Return all that the database says of our tables."""
    with scratch.cursor() as cursor:
        names = scratch.introspection.table_names(cursor)
        tables = sorted(name for name in names if name.startswith("django_jobs_"))
        return {table: _layout(scratch, cursor, table) for table in tables}


def _layout(scratch: Any, cursor: Any, table: str) -> Any:
    columns = scratch.introspection.get_table_description(cursor, table)
    constraints = scratch.introspection.get_constraints(cursor, table)
    if scratch.vendor != "mysql":
        return columns, constraints
    cursor.execute(f"SHOW CREATE TABLE {table}")
    return columns, constraints, cursor.fetchone()


# -- waiting for a lock ----------------------------------------------------------------


class Later(migrations.Migration):
    """What a later release may add."""

    operations: list[Operation] = [
        BesideWorkers(),
        migrations.AddField("task", "note", models.TextField(null=True)),
        BesideWorkers(),
    ]


def run_later(*, is_backwards: bool = False) -> None:
    """Do to the scratch database what ``migrate`` does with one migration."""
    before = MigrationLoader(None).project_state()
    migration = Later("0099_later", "django_jobs")
    with connections[SCRATCH].schema_editor(atomic=migration.atomic) as editor:
        work = migration.unapply if is_backwards else migration.apply
        work(before, editor)


def has_note(of: Any) -> bool:
    with of.cursor() as cursor:
        description = of.introspection.get_table_description(
            cursor, Task._meta.db_table
        )
    return "note" in {column.name for column in description}


@contextmanager
def lock_on_tasks() -> Iterator[None]:
    """Have another session read the tasks in a transaction that it leaves open."""
    other = connections[SCRATCH].copy()
    begin = "BEGIN IMMEDIATE" if other.vendor == "sqlite" else "BEGIN"
    try:
        with other.cursor() as cursor:
            cursor.execute(begin)
            cursor.execute(f"SELECT COUNT(*) FROM {Task._meta.db_table}")
            cursor.fetchone()
            yield
    finally:
        other.close()


@pytest.fixture
def migrated(scratch: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A scratch database with our tables, where waits for locks last a second."""
    monkeypatch.setattr(_beside_workers, "SECONDS", 1)
    migrate()
    return scratch


def session_timeout(of: Any) -> Any:
    queries = {"postgresql": "SHOW lock_timeout", "mysql": "SELECT @@lock_wait_timeout"}
    with of.cursor() as cursor:
        cursor.execute(queries[of.vendor])
        return cursor.fetchone()[0]


def gives_up(is_backwards: bool) -> float:
    """Return after how many seconds a migration gives up."""
    with lock_on_tasks(), pytest.raises(CommandError) as caught:
        begin = time.monotonic()
        run_later(is_backwards=is_backwards)
    seconds = time.monotonic() - begin
    assert "gave up after waiting for a lock" in str(caught.value)
    assert "manage.py migrate --database scratch again" in str(caught.value)
    return seconds


@needs_server
@pytest.mark.parametrize("is_backwards", [False, True])
def test_a_migration_gives_up_after_a_short_wait_and_can_be_run_again(
    migrated: Any, is_backwards: bool
) -> None:
    if is_backwards:
        run_later()
    usual = migrated.copy()
    before = session_timeout(usual)
    usual.close()
    assert session_timeout(migrated) == before
    assert 0.9 < gives_up(is_backwards) < 4
    assert session_timeout(migrated) == before
    assert has_note(migrated) is is_backwards
    run_later(is_backwards=is_backwards)
    assert has_note(migrated) is not is_backwards
    assert session_timeout(migrated) == before


@needs_server
def test_a_wait_that_the_session_was_given_is_left_alone(migrated: Any) -> None:
    words = {
        "postgresql": "SET SESSION lock_timeout = '3s'",
        "mysql": "SET SESSION lock_wait_timeout = 3",
    }
    with migrated.cursor() as cursor:
        cursor.execute(words[migrated.vendor])
    assert 2.9 < gives_up(is_backwards=False) < 7
    assert session_timeout(migrated) in (3, "3s")


@pytest.mark.skipif(IS_SERVER, reason="only on sqlite")
def test_sqlite_waits_for_its_own_timeout(scratch: Any) -> None:
    migrate()
    scratch.close()
    scratch.settings_dict["OPTIONS"]["timeout"] = 0.2
    with lock_on_tasks(), pytest.raises(OperationalError, match="database is locked"):
        run_later()
    run_later()
    assert has_note(scratch)


# -- failing in their middle -----------------------------------------------------------


class Breakdown:
    """Fails at each change of a table once, before it was made or after."""

    def __init__(self, *, is_made: bool) -> None:
        self.is_made = is_made
        self.seen: set[str] = set()

    def __call__(
        self, execute: Any, sql: str, params: Any, many: bool, context: Any
    ) -> Any:
        is_change = str(sql).startswith(("CREATE", "ALTER", "DROP"))
        if not is_change or "django_jobs_" not in sql or sql in self.seen:
            return execute(sql, params, many, context)
        self.seen.add(sql)
        if self.is_made:
            execute(sql, params, many, context)
        raise OperationalError("the server has gone")


# What was made is rolled back elsewhere, so that it comes to the same.
@pytest.mark.parametrize("is_made", [True, False][: 1 + (connection.vendor == "mysql")])
def test_a_migration_that_failed_at_any_statement_can_be_run_again(
    scratch: Any, is_made: bool
) -> None:
    migrate()
    newest = layout(scratch)
    for target in ("zero", NAMES[-1]):
        breakdown = Breakdown(is_made=is_made)
        failures = 0
        while not is_done(breakdown, target):
            failures += 1
        assert failures == len(breakdown.seen) >= len(newest)
    assert layout(connections[SCRATCH]) == newest


def is_done(breakdown: Breakdown, target: str) -> bool:
    """Migrate as a process of its own does, on a connection of its own."""
    connections[SCRATCH].close()
    del connections[SCRATCH]
    try:
        with connections[SCRATCH].execute_wrapper(breakdown):
            migrate(target)
    except OperationalError as error:
        assert str(error) == "the server has gone"
        return False
    return True


def test_a_table_of_others_is_not_taken_for_ours(scratch: Any) -> None:
    table = Task._meta.db_table
    with scratch.cursor() as cursor:
        cursor.execute(f"CREATE TABLE {table} (id integer)")
    error = CommandError if scratch.vendor == "mysql" else DatabaseError
    with pytest.raises(error, match=table):
        migrate()
    with scratch.cursor() as cursor:
        cursor.execute(f"DROP TABLE {table}")
    migrate()
    assert len(layout(scratch)) > 1
