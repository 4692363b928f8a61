"""Fences: whoever changes a row repeats what he knows of it, and counts what he hit."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import connection, connections, transaction
from django.test import override_settings

from django_jobs.models import DeadLetter, Result, Task, Worker
from django_jobs.records import Demand
from django_jobs.states import State, Verdict
from django_jobs.store import Store, workers
from django_jobs.store.errors import RowsChanged
from tests.statements import Call, watched
from tests.store.fences import FENCES, changes_in
from tests.store.samples import (
    OTHER_WORKER,
    WORKER,
    be_alive,
    claim,
    claim_new,
    complete,
    die,
    insert,
    new_task,
    new_worker,
    on_both,
    outcome,
    places,
)
from tests.store.test_concurrency import DEADLINE

pytestmark = on_both

# -- every statement -----------------------------------------------------------------


class Changes:
    """Notes the statements that change rows of the queue, by their kinds."""

    def __init__(self) -> None:
        self.found: dict[str, set[str]] = {}

    @contextmanager
    def __call__(self, call: Call) -> Iterator[None]:
        for kind, demands in changes_in(call.text):
            self.found.setdefault(kind, set()).add(demands)
        yield


def live(store: Store) -> None:
    """Let tasks and workers go through all that may happen to them."""
    for verdict in Verdict:
        told = [outcome(task, verdict, retention=0.0) for task in claim_new(store, 2)]
        store.cycle(WORKER, told, Demand(1))
        store.sign_off(WORKER)
    insert(store, delay=0.001)
    wait_for(lambda: store.promote() > 0)
    tasks = claim_new(store, 3)
    store.save_metadata(WORKER, tasks[0].id, tasks[0].lease, progress="1")
    store.revoke([tasks[0].id, *insert(store)])
    store.renew(WORKER, 60)
    store.expire_workers([WORKER])
    store.rescue(1), store.rescue()
    store.requeue([str(each) for each in DeadLetter.objects.values_list("pk", flat=1)])
    failed, also_failed, unknown = claim_new(store, 3)
    with override_settings(DJANGO_JOBS={"DEAD_LETTER_RETENTION": 0.001}):
        complete(store, failed, Verdict.FAILED)
    wait_for(lambda: store.prune() > 0)
    complete(store, also_failed, Verdict.FAILED)
    store.prune(older_than=0)
    complete(store, unknown, Verdict.UNKNOWN, delay=3.0)
    assert store.adopt(5.0, lambda queue, name: True) == 1


def test_every_change_repeats_what_is_known_of_its_rows(store: Store) -> None:
    changes = Changes()
    with watched(changes):
        live(store)
    assert changes.found.keys() == FENCES.keys()
    unfenced = {kind: found - FENCES[kind] for kind, found in changes.found.items()}
    assert {kind: found for kind, found in unfenced.items() if found} == {}
    for kind in ("DELETE result", "DELETE deadletter"):
        assert {"ids & prune_at <=", "finished_at <= & ids"} <= changes.found[kind]


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE django_jobs_task SET metadata = %s WHERE id = %s RETURNING lease",
        "UPDATE django_jobs_task SET metadata = %s WHERE id = %s AND lease = %s "
        "AND state = 'RUNNING' ORDER BY worker_id",
        "UPDATE django_jobs_task SET state = 'RUNNING', lease = lease + 1 "
        "WHERE id IN (SELECT id FROM django_jobs_task WHERE state = 'READY')",
        "UPDATE django_jobs_task SET state = 'READY' WHERE id IN (%s) OR "
        "state = 'RUNNING'",
        "DELETE FROM django_jobs_task WHERE id = %s AND state = 'RUNNING'",
        "DELETE FROM django_jobs_task WHERE id = ANY(%(ids)s) AND lease = %s "
        "AND state || '' = 'RUNNING' RETURNING worker_id",
        "DELETE FROM django_jobs_result WHERE id IN (%s) LIMIT 1",
        "DELETE FROM django_jobs_worker WHERE expires_at <= now() AND id IN (%s)",
    ],
)
def test_a_change_that_is_not_fenced_is_seen(change: str) -> None:
    [(kind, demands)] = changes_in(change)
    assert demands not in FENCES[kind]


def test_what_was_hit_is_counted(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    (task,) = claim_new(store)
    monkeypatch.setattr(store, "delete_in", lambda *_: 0)
    works: list[Callable[[], Any]] = [
        lambda: complete(store, task, Verdict.FAILED),
        lambda: store.revoke(insert(store)),
    ]
    for work in works:
        with pytest.raises(RowsChanged):
            work()
    assert places(task.id) == ["Task"]
    assert not Result.objects.exists()


def test_outcomes_whose_rows_changed_meanwhile_are_completed_one_by_one(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = claim_new(store, 3)
    cycle = type(store)._cycle  # type: ignore[attr-defined]

    def changed(self: Store, worker_id: str, outcomes: Any, demand: Any) -> Any:
        answer = cycle(self, worker_id, [], demand)
        if outcomes:
            raise RowsChanged
        return answer

    monkeypatch.setattr(type(store), "_cycle", changed)
    told = [outcome(task, lease=task.lease + (task is tasks[1])) for task in tasks]
    assert store.cycle(WORKER, told, None).stale == [tasks[1].id]
    assert [places(task.id) for task in tasks] == [["Result"], ["Task"], ["Result"]]


# -- one end ---------------------------------------------------------------------------


def also_finished(task_id: str) -> None:
    """Have a task be a result as well, as nothing but a hand can do it."""
    row = Task.objects.get(pk=task_id)
    Result.objects.create(
        id=row.pk,
        name=row.name,
        queue_name=row.queue_name,
        enqueued_at=row.enqueued_at,
        run_after=row.run_after,
        finished_at=row.run_after,
        state=State.SUCCESSFUL,
        return_value='"first"',
    )


@pytest.mark.parametrize(
    "verdict", [Verdict.SUCCESSFUL, Verdict.FAILED, Verdict.REVOKED]
)
def test_the_first_end_of_a_task_stands(store: Store, verdict: Verdict) -> None:
    first, double, last = claim_new(store, 3)
    also_finished(double.id)
    told = [
        outcome(first, return_value='"new"'),
        outcome(double, verdict, return_value='"new"'),
        outcome(last, return_value='"new"'),
    ]
    assert store.cycle(WORKER, told, None).stale == [double.id]
    assert [places(task.id) for task in (first, double, last)] == [["Result"]] * 3
    values = Result.objects.in_bulk()
    assert {str(pk): each.return_value for pk, each in values.items()} == {
        first.id: '"new"',
        double.id: '"first"',
        last.id: '"new"',
    }


def test_a_task_in_two_tables_hinders_no_rescue(store: Store) -> None:
    tasks = claim_new(store, 2)
    also_finished(tasks[0].id)
    store.revoke([task.id for task in tasks])
    die(store)
    assert sorted(store.rescue()) == sorted(task.id for task in tasks)
    assert [places(task.id) for task in tasks] == [["Result"]] * 2


def test_a_repeated_insert_brings_no_finished_task_back(store: Store) -> None:
    copy = new_task()
    store.insert([copy])
    (task,) = claim(store)
    complete(store, task, Verdict.FAILED)
    store.insert([copy], again=True)
    assert places(task.id) == ["DeadLetter"]
    store.requeue([task.id])
    store.insert([copy], again=True)
    assert places(task.id) == ["Task"]


# -- workers ---------------------------------------------------------------------------


def test_who_has_no_row_claims_nothing(store: Store) -> None:
    insert(store)
    for demand in (Demand(5), Demand(5, ("default",)), Demand(5, ("a", "default"))):
        assert store.cycle(WORKER, [], demand).claimed == []
    assert len(claim(store)) == 1


def test_who_is_dead_claims_nothing(store: Store) -> None:
    insert(store)
    be_alive(store)
    die(store)
    assert store.cycle(WORKER, [], Demand(5)).claimed == []
    assert len(claim(store, 5, OTHER_WORKER)) == 1


def test_a_lease_that_is_over_claims_nothing(store: Store) -> None:
    store.register(new_worker(id=WORKER), 0.0)
    insert(store)
    # Unless a task of its own may have kept it from renewing in time.
    claimed = store.cycle(WORKER, [], Demand(5)).claimed
    assert len(claimed) == store.has_single_writer


def test_a_claim_does_not_wait_for_who_has_the_row_of_its_worker(
    store: Store, requires: Callable[..., None]
) -> None:
    requires("postgresql", "mysql")
    ids = insert(store)
    be_alive(store)
    with transaction.atomic(), ThreadPoolExecutor(1) as pool:
        Worker.objects.select_for_update().get(pk=WORKER)
        claimed = pool.submit(alone, lambda: store.cycle(WORKER, [], Demand(5)).claimed)
        assert [task.id for task in claimed.result(DEADLINE)] == ids


def test_a_worker_whose_tasks_are_partly_taken_does_not_come_back(
    store: Store,
) -> None:
    store.register(new_worker(id=WORKER), 3600.0)
    first, second = claim_new(store, 2)
    Worker.objects.update(expires_at=store.now())
    assert len(store.rescue(1)) == 1
    assert Worker.objects.get().state == "dead"
    assert not store.renew(WORKER, 60)
    assert [len(complete(store, task)) for task in (first, second)] == [1, 0]


def test_a_task_that_a_new_worker_has_by_now_is_not_rescued(
    store: Store, requires: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    requires("postgresql")
    (task,) = claim_new(store)
    Worker.objects.all().delete()
    with connection.cursor() as cursor, ThreadPoolExecutor(1) as pool:
        cursor.execute("SELECT pg_advisory_lock(1)")
        with monkeypatch.context() as patched:
            patched.setattr(workers, "ORPHANS", slowed(workers.ORPHANS))
            late = pool.submit(alone, store.rescue)
            wait_for(lambda: count_of_waiting(cursor) == 1)
        assert store.rescue() == [task.id]
        (again,) = claim(store, 1, OTHER_WORKER)
        cursor.execute("SELECT pg_advisory_unlock(1)")
        assert late.result(DEADLINE) == []
    assert complete(store, again, worker=OTHER_WORKER) == []


def slowed(orphans: str) -> str:
    """Have the statement wait between its snapshot and the first row."""
    return orphans.replace(
        "AND NOT EXISTS",
        "AND (SELECT pg_advisory_xact_lock(1)) IS NOT NULL AND NOT EXISTS",
    )


def alone(work: Callable[[], Any]) -> Any:
    try:
        return work()
    finally:
        connections.close_all()


def count_of_waiting(cursor: Any) -> int:
    cursor.execute(
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted "
        "AND database = (SELECT oid FROM pg_database "
        "WHERE datname = current_database())"
    )
    return int(cursor.fetchone()[0])


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < until
