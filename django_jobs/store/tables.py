"""What a database lacks of our tables, and what to say of that: migrate first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from django.apps import apps
from django.db import DatabaseError, connections

from django_jobs.exceptions import SetupError
from django_jobs.store import Store, get_store
from django_jobs.store.errors import is_not_migrated
from django_jobs.store.reentry import refuse_inside_call
from django_jobs.texts import shorten

#: So much of what is missing is named.
_MOST_NAMED = 3
#: Characters of an error.
_LENGTH = 300


def lacking(connection: Any) -> list[str]:
    """Return what is not there: tables by their names, columns as ``table.column``."""
    with connection.cursor() as cursor:
        tables = set(connection.introspection.table_names(cursor))
        missing = []
        for model in apps.get_app_config("django_jobs").get_models():
            table = model._meta.db_table
            if table in tables:
                there = _columns(connection, cursor, table)
                columns = [each.column for each in model._meta.local_concrete_fields]
                missing += [f"{table}.{each}" for each in columns if each not in there]
            else:
                missing.append(table)
    return missing


def _columns(connection: Any, cursor: Any, table: str) -> set[str]:
    description = connection.introspection.get_table_description(cursor, table)
    return {column.name for column in description}


def what_is_lacking(missing: Sequence[str]) -> str:
    """Say in words what ``lacking`` found."""
    if apps.get_model("django_jobs", "Task")._meta.db_table in missing:
        return "the tables of django_jobs are missing"
    named = ", ".join(missing[:_MOST_NAMED])
    more = f" and {len(missing) - _MOST_NAMED} more" * (len(missing) > _MOST_NAMED)
    return f"the tables of django_jobs are older than this code (no {named}{more})"


def migrate_first(alias: str, missing: Sequence[str]) -> str:
    """Say what is missing on a database, and what to run."""
    return f"{what_is_lacking(missing)} on {alias!r}: {how_to_migrate(alias)}"


def how_to_migrate(alias: str) -> str:
    return f"run manage.py migrate --database {alias}"


@contextmanager
def migrated_store(alias: str | None = None) -> Iterator[Store]:
    """Yield the store; SetupError in place of an error that a migration would mend.

    ConnectionBusy when the caller is inside a call of the same connection.
    """
    store = get_store(alias)
    refuse_inside_call(connections[store.alias])
    try:
        yield store
    except DatabaseError as error:
        if not is_not_migrated(error):
            raise
        words = shorten(" ".join(str(error).split()), _LENGTH)
        raise SetupError(
            f"the tables of django_jobs are missing on {store.alias!r}, or older than "
            f"this code: {how_to_migrate(store.alias)} ({words})"
        ) from error
