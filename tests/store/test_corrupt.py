"""Rows that were written by hand, past all checks: none of them stops the others."""

from __future__ import annotations

import pytest
from django.db import connections

from django_jobs.models import Result, Task, Worker
from django_jobs.store import Store
from tests.store.samples import (
    WORKER,
    claim,
    claim_new,
    complete,
    insert,
    on_both,
    outcome,
)

pytestmark = on_both

#: Columns, and values that fit into them and leave no room for one more.
FULL = {
    "lease": 2_147_483_647,
    "attempt": 2_147_483_647,
}


def _set(store: Store, task_id: str, column: str, value: object) -> None:
    with connections[store.alias].cursor() as cursor:
        cursor.execute(
            f"UPDATE django_jobs_task SET {column} = %s WHERE id = %s",
            [value, store.to_id(task_id)],  # type: ignore[attr-defined]
        )


@pytest.mark.parametrize("column", FULL)
def test_a_number_that_cannot_grow_does_not_stop_the_claims(
    store: Store, column: str
) -> None:
    full, other = insert(store, 2)
    _set(store, full, column, FULL[column])
    assert other in {task.id for task in claim(store)}


def test_crashes_that_cannot_grow_do_not_stop_the_rescue(store: Store) -> None:
    full, other = insert(store, 2)
    claim(store)
    Worker.objects.all().delete()
    _set(store, full, "crashes", 32_767)
    assert set(store.rescue()) == {full, other}
    assert Task.objects.filter(pk=other, state="READY").exists()


@pytest.mark.parametrize("value", ["0001-01-01 00:00:00", "9999-12-31 23:59:59"])
def test_a_time_at_the_edge_does_not_stop_the_promotion(
    store: Store, value: str
) -> None:
    edge, _ = insert(store, 2, delay=100.0)
    _set(store, edge, "run_after", value)
    assert store.next_due() is not None
    store.promote()
    assert Task.objects.count() == 2


def test_a_result_that_is_there_already_takes_no_other_along(store: Store) -> None:
    twice, renamed, other = claim_new(store, 3)
    complete(store, twice)
    _set(store, renamed.id, "id", store.to_id(twice.id))  # type: ignore[attr-defined]
    outcomes = [outcome(renamed, id=twice.id), outcome(other)]
    # The first end of a task stands.
    assert store.cycle(WORKER, outcomes, None).stale == [twice.id]
    assert Result.objects.filter(pk=other.id).exists()
    assert Result.objects.count() == 2
