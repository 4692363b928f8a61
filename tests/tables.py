"""Tables as an earlier release has left them, or as a later one will."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connection


@contextmanager
def without(model: Any, column: str) -> Iterator[None]:
    """Have a table lack a column, as before the migration that adds it."""
    table, away = model._meta.db_table, f"{column}_away"
    change(table, f"RENAME COLUMN {_name(column)} TO {_name(away)}")
    try:
        yield
    finally:
        change(table, f"RENAME COLUMN {_name(away)} TO {_name(column)}")


@contextmanager
def without_table(model: Any) -> Iterator[None]:
    """Have a table away, as before the migration that makes it."""
    table = model._meta.db_table
    change(table, f"RENAME TO {_name(f'{table}_away')}")
    try:
        yield
    finally:
        change(f"{table}_away", f"RENAME TO {_name(table)}")


def change(table: str, words: str) -> None:
    """Alter a table on a connection of its own, as ``migrate`` does."""
    other = connection.copy()
    try:
        with other.cursor() as cursor:
            cursor.execute(f"ALTER TABLE {_name(table)} {words}")
    finally:
        other.close()


def _name(name: str) -> str:
    quoted: str = connection.ops.quote_name(name)
    return quoted
