"""Old code on the tables of a later release: columns came under its statements.

A worker has its statements prepared when a migration adds columns to the tables. It
goes on, whatever the columns are called.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

import django_jobs.store
from django_jobs.models import Attempt, DeadLetter, Result, Task, Worker
from django_jobs.records import Cycle
from django_jobs.states import Verdict
from django_jobs.store import Store
from tests.store.samples import (
    ERROR,
    OTHER_WORKER,
    WORKER,
    claim,
    claim_new,
    die,
    insert,
    on_both,
    outcome,
    places,
)
from tests.tables import change

pytestmark = on_both

TABLES = (Task, Result, DeadLetter, Attempt, Worker)
#: From the sixth time on, PostgreSQL keeps the plan of a prepared statement.
OFTEN = 7
#: How a migration may add a column: one that old code need not know of.
KINDS = ["integer NULL", "integer NOT NULL DEFAULT 7"]
#: Where a task is after each end of a run.
ENDS = {
    Verdict.SUCCESSFUL: "Result",
    Verdict.REVOKED: "Result",
    Verdict.FAILED: "DeadLetter",
    Verdict.RETRY: "Task",
    Verdict.CRASHED: "Task",
    Verdict.RELEASED: "Task",
    Verdict.UNKNOWN: "Task",
}


def column_names() -> list[str]:
    """Return names for new columns: those that statements use, and of other tables."""
    files = Path(django_jobs.store.__file__).parent.glob("*.py")
    texts = [path.read_text() for path in files]
    aliases = {name for text in texts for name in re.findall(r"\bAS ([a-z_]+)\b", text)}
    return sorted(aliases | {name for model in TABLES for name in columns_of(model)})


def columns_of(model: Any) -> set[str]:
    return {field.column for field in model._meta.local_concrete_fields}


@contextmanager
def with_new_columns(kind: str) -> Iterator[None]:
    """Have the tables as a later release may leave them."""
    try:
        for model in TABLES:
            alter(model, f"ADD COLUMN {{}} {kind}")
        yield
    finally:
        for model in TABLES:
            alter(model, "DROP COLUMN {}")


def alter(model: Any, words: str) -> None:
    names = [name for name in column_names() if name not in columns_of(model)]
    changes = [words.format(connection.ops.quote_name(name)) for name in names]
    # SQLite takes one at a time, and the others are much faster with all at once.
    at_once = 1 if connection.vendor == "sqlite" else len(changes)
    for start in range(0, len(changes), at_once):
        change(model._meta.db_table, ", ".join(changes[start : start + at_once]))


def live(store: Store) -> None:
    """Have tasks go all the ways that there are."""
    for verdict, table in ENDS.items():
        tasks = [*claim_new(store), *claim_new(store, 2)]
        ends = [outcome(each, verdict, error=ERROR, delay=60.0) for each in tasks]
        assert store.cycle(WORKER, ends, None) == Cycle([], [])
        assert [places(task.id) for task in tasks] == [[table]] * 3
    upkeep(store)
    assert set(Attempt.objects.values_list("worker_name", flat=True)) == {"label"}
    # Nothing is left for the next time.
    ids = [str(key) for key in Task.objects.values_list("pk", flat=True)]
    assert set(store.revoke(ids).values()) == {"revoked"}
    for finished in (Result, DeadLetter):
        finished.objects.update(prune_at=store.now())
    assert store.prune() > len(ids)
    assert not Task.objects.exists()


def upkeep(store: Store) -> None:
    """Put tasks back to work in all the ways that there are."""
    (letter, *_) = DeadLetter.objects.values_list("pk", flat=True)
    assert store.requeue([str(letter)]) == [str(letter)]
    assert store.adopt(100.0, lambda queue, name: True) == 3
    Task.objects.filter(state="SCHEDULED").update(run_after=store.now())
    assert store.promote() == 9
    assert len(claim(store, 20, queues=("default", "none"))) == 13
    assert store.sign_off(WORKER) == 13
    held = claim(store, 5, worker=OTHER_WORKER)
    assert store.renew(OTHER_WORKER, 60.0, running=len(held))
    die(store, OTHER_WORKER)
    assert sorted(store.rescue()) == sorted(task.id for task in held)


@pytest.mark.parametrize("kind", KINDS)
def test_statements_that_are_prepared_outlive_new_columns(
    store: Store, kind: str
) -> None:
    for _ in range(OFTEN):
        live(store)
    session = connection.connection
    with with_new_columns(kind):
        for _ in range(2):
            live(store)
        insert(store)
        (task,) = claim(store)
        assert store.cycle(WORKER, [outcome(task)], None) == Cycle([], [])
    live(store)
    assert connection.connection is session
