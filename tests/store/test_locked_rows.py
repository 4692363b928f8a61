"""A row that somebody else has locked holds up that task alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from typing import Any

import pytest
from django.db import Error, OperationalError, connections

from django_jobs.models import Task
from django_jobs.records import ClaimedTask, Cycle
from django_jobs.states import Verdict
from django_jobs.store import Store
from django_jobs.store import sessions as module
from django_jobs.store.errors import is_contended
from django_jobs.store.sessions import SessionGuard
from tests.store.samples import WORKER, claim_new, on_both, outcome

pytestmark = on_both


@pytest.fixture
def tasks(
    store: Store, requires: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> Iterator[list[ClaimedTask]]:
    """Two running tasks, of which another session has locked the first."""
    requires("postgresql", "mysql")
    monkeypatch.setattr(module, "LOCK_WAIT", 1)
    guard = SessionGuard(store.alias, 20.0)
    connections[store.alias].close()
    guard.start()
    claimed = claim_new(store, 2)
    with closing(connections[store.alias].copy()) as other:
        lock_row(store, other, claimed[0].id)
        yield claimed
        with suppress(Error):
            other.rollback()
    guard.stop()
    connections[store.alias].close()


def lock_row(store: Any, connection: Any, task_id: str) -> None:
    """Lock the row of a task in a transaction that stays open."""
    connection.set_autocommit(False)
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT id FROM {Task._meta.db_table} WHERE id = %s FOR UPDATE",
            [store.to_id(task_id)],
        )
        assert cursor.fetchone()


@pytest.mark.parametrize("verdict", [Verdict.SUCCESSFUL, Verdict.FAILED])
def test_the_others_are_written_at_the_second_try(
    store: Store, tasks: list[ClaimedTask], verdict: Verdict
) -> None:
    locked, free = tasks
    outcomes = [outcome(task, verdict) for task in tasks]
    with pytest.raises(OperationalError) as caught:
        store.cycle(WORKER, outcomes, None)
    assert is_contended(caught.value)
    assert store.cycle(WORKER, outcomes, None, again=True) == Cycle(
        [], [], (locked.id,)
    )
    assert store.held(WORKER) == [(locked.id, 1)]
    assert free.id in store.finished([free.id])


def test_what_is_gone_is_stale_and_not_locked(
    store: Store, tasks: list[ClaimedTask]
) -> None:
    _, free = tasks
    store.cycle(WORKER, [outcome(free)], None)
    assert store.cycle(WORKER, [outcome(free)], None, again=True).stale == [free.id]
