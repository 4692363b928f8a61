"""What makes a migration safe while workers run; the first and last of its operations.

A change of a table waits for every transaction that has touched it, and whoever comes
after it waits behind it: one forgotten transaction would stop all workers and web
processes. So a statement gives up after a few seconds, and the migration is run again.

MySQL and MariaDB cannot roll back what a migration did before it failed. There a
statement that finds its work done is passed over, so that it may be run again too.

Django goes through the operations from the last one when it migrates backwards: that
is why it stands at both ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.core.management import CommandError
from django.db import DatabaseError, models
from django.db.migrations.operations.base import Operation

from django_jobs.store.errors import is_done_already, is_lock_timeout

#: How long a statement waits for a lock, in seconds; a shorter time of the server, or
#: any that the session was given, is left alone.
SECONDS = 5
#: For the transaction of the migration.
POSTGRESQL = """
SELECT set_config('lock_timeout', '{seconds}s', true)
WHERE current_setting('lock_timeout') = '0'
"""
#: For the session, since there is no such transaction.
MYSQL = "SET SESSION lock_wait_timeout = {seconds}"
MYSQL_TIMEOUTS = "SELECT @@SESSION.lock_wait_timeout, @@GLOBAL.lock_wait_timeout"


class BesideWorkers(Operation):
    """Have the operations that follow, in either direction, wait for locks briefly."""

    def state_forwards(self, app_label: str, state: Any) -> None:
        """Change no model."""

    def database_forwards(
        self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any
    ) -> None:
        if isinstance(schema_editor.execute, _Execute):
            schema_editor.execute.check_leftovers(app_label, to_state)
        else:
            _limit_waits(schema_editor)

    def database_backwards(
        self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any
    ) -> None:
        if not isinstance(schema_editor.execute, _Execute):
            _limit_waits(schema_editor)

    def describe(self) -> str:
        return f"Wait for a lock for at most {SECONDS} s, since workers wait behind"


def _limit_waits(editor: Any) -> None:
    if editor.connection.vendor in ("postgresql", "mysql"):
        editor.execute = _Execute(editor)


class _Execute:
    """The ``execute`` of a schema editor, also for what it does at its very end."""

    def __init__(self, editor: Any) -> None:
        self._connection = editor.connection
        self._execute = editor.execute
        self._collects = editor.collect_sql
        #: Was anything passed over?
        self._found_leftovers = False
        if self._connection.vendor == "postgresql":
            if editor.atomic_migration:
                self._execute(POSTGRESQL.strip().format(seconds=SECONDS))
        elif self._collects:
            self._execute(MYSQL.format(seconds=SECONDS))

    def __call__(self, sql: Any, params: Any = ()) -> None:
        try:
            with self._short_wait():
                self._execute(sql, params)
        except DatabaseError as error:
            if is_lock_timeout(error):
                raise CommandError(_gave_up(self._connection.alias)) from error
            if self._connection.features.can_rollback_ddl or not is_done_already(error):
                raise
            self._found_leftovers = True

    @contextmanager
    def _short_wait(self) -> Iterator[None]:
        if self._connection.vendor != "mysql" or self._collects:
            yield
            return
        with self._connection.cursor() as cursor:
            cursor.execute(MYSQL_TIMEOUTS)
            before, usual = cursor.fetchone()
            if before == usual > SECONDS:
                cursor.execute(MYSQL.format(seconds=SECONDS))
        try:
            yield
        finally:
            with self._connection.cursor() as cursor:
                cursor.execute(MYSQL.format(seconds=before))

    def check_leftovers(self, app_label: str, state: Any) -> None:
        """Refuse to take for ours what has only the name of a table of ours."""
        if not self._found_leftovers:
            return
        for model in state.apps.get_app_config(app_label).get_models():
            with self._connection.cursor() as cursor:
                _check_columns(self._connection, cursor, model)
        self._found_leftovers = False


def _check_columns(connection: Any, cursor: Any, model: type[models.Model]) -> None:
    table = model._meta.db_table
    found = connection.introspection.get_table_description(cursor, table)
    expected = {field.column for field in model._meta.local_concrete_fields}
    if expected != {column.name for column in found}:
        raise CommandError(
            f"the table {table} is there already, with other columns than this "
            "migration gives it: rename or drop it, and run manage.py migrate again"
        )


def _gave_up(alias: str) -> str:
    return (
        "the migration gave up after waiting for a lock on a table of django_jobs: "
        "another session has used that table in a transaction that is still open. "
        f"Workers go on. End that transaction, or wait for its end, and run manage.py "
        f"migrate --database {alias} again"
    )
