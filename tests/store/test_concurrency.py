"""Many workers at once, each on a connection of its own."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from django.db import connection, connections, transaction

from django_jobs.models import DeadLetter, Result, Task
from django_jobs.records import Demand
from django_jobs.states import State, Verdict
from django_jobs.store import Store
from tests.store.samples import (
    OTHER_WORKER,
    WORKER,
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

pytestmark = on_both

THREADS = 8
#: Seconds after which a test gives up on its threads.
DEADLINE = 60


def together(*works: Callable[[], Any]) -> list[Any]:
    """Start all works at the same moment in threads; return what they return."""
    barrier = threading.Barrier(len(works), timeout=DEADLINE)

    def run(work: Callable[[], Any]) -> Any:
        try:
            connection.ensure_connection()
            barrier.wait()
            return work()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(len(works)) as pool:
        futures = [pool.submit(run, work) for work in works]
        return [future.result(DEADLINE) for future in futures]


def worker_of(store: Store, demand: Demand) -> Callable[[], list[str]]:
    """Return a loop that claims and completes until nothing is left."""
    worker = new_worker()

    def work() -> list[str]:
        store.register(worker, 60)
        done: list[str] = []
        tasks = store.cycle(worker.id, [], demand).claimed
        while tasks:
            done += [task.id for task in tasks]
            outcomes = [outcome(task) for task in tasks]
            tasks, stale, _ = store.cycle(worker.id, outcomes, demand)
            assert stale == []
        return done

    return work


def test_no_two_workers_get_the_same_task(store: Store) -> None:
    ids = insert(store, 600)
    done = together(*[worker_of(store, Demand(7)) for _ in range(THREADS)])
    assert sorted(each for part in done for each in part) == sorted(ids)
    assert Result.objects.count() == 600


def test_workers_of_several_queues_do_not_get_in_each_others_way(
    store: Store,
) -> None:
    for number in range(300):
        insert(store, queue_name="abc"[number % 3], priority=number % 5)
    demands = [
        Demand(10, ("a", "b", "c")),
        Demand(10, ("c", "b", "a")),
        Demand(10, ("b", "a"), is_strict=True),
        Demand(10, ("c",)),
        Demand(10),
        Demand(10, exclude=("a",)),
    ]
    done = together(*[worker_of(store, demand) for demand in demands])
    counts = Counter(each for part in done for each in part)
    assert set(counts.values()) == {1}
    assert len(counts) + Task.objects.filter(state="READY").count() == 300


def test_everything_at_once_neither_fails_nor_loses_a_task(store: Store) -> None:
    insert(store, 200)
    stop = threading.Event()

    def producer() -> int:
        for number in range(40):
            insert(store, 1 + number % 7, delay=0.0 if number % 3 else 0.01)
        return sum(1 + number % 7 for number in range(40))

    def worker() -> int:
        me = new_worker()
        store.register(me, 60)
        tasks = store.cycle(me.id, [], Demand(9)).claimed
        while tasks or not stop.is_set():
            kinds = [Verdict.SUCCESSFUL, Verdict.RETRY, Verdict.FAILED]
            outcomes = [
                outcome(task, kinds[number % 3 if task.attempt < 3 else 0])
                for number, task in enumerate(tasks)
            ]
            tasks, stale, _ = store.cycle(me.id, outcomes, Demand(9))
            assert stale == []
        return store.sign_off(me.id)

    def keeper() -> None:
        for _ in range(30):
            store.promote()
            store.rescue()
            store.prune(older_than=3600)
            store.claim_chore("prune", 0.001)
            dead = DeadLetter.objects.values_list("pk", flat=True)[:3]
            store.requeue([str(each) for each in dead])

    def stopper() -> int:
        try:
            return sum(part or 0 for part in [producer(), keeper()])
        finally:
            stop.set()  # also when it failed: nobody shall wait for ever

    first, *_ = together(stopper, keeper, worker, worker, worker, worker)
    counts = [table.objects.count() for table in (Task, Result, DeadLetter)]
    assert sum(counts) == 200 + first
    assert not Task.objects.filter(state=State.RUNNING).exists()


def test_one_of_many_gets_the_turn_at_a_chore(store: Store) -> None:
    for every in (60, 0):
        turns = together(*[lambda: store.claim_chore("prune", every)] * THREADS)  # noqa: B023
        assert sum(turns) >= 1
        assert every == 0 or sum(turns) == 1


def test_one_of_many_rescues_a_task(store: Store) -> None:
    tasks = claim_new(store, 50)
    die(store)
    rescued = sum(map(len, together(*[lambda: store.rescue(20)] * THREADS)))
    assert rescued == 50 or len(store.rescue()) == 50 - rescued
    assert Task.objects.filter(state="READY", crashes=1).count() == len(tasks)


def test_one_outcome_of_two_counts(store: Store) -> None:
    for task in claim_new(store, 10):
        stale = together(
            lambda: complete(store, task),  # noqa: B023
            lambda: complete(store, task, Verdict.FAILED),  # noqa: B023
        )
        assert sorted(stale) == [[], [task.id]]
        assert len(places(task.id)) == 1


def test_a_task_is_either_revoked_or_claimed(store: Store) -> None:
    for _ in range(10):
        (task_id,) = insert(store)
        answer, claimed = together(
            lambda: store.revoke([task_id])[task_id],  # noqa: B023
            lambda: claim(store),
        )
        assert (answer, len(claimed)) in {("revoked", 0), ("requested", 1)}
        store.sign_off(WORKER)


def test_one_copy_of_a_task_inserted_by_many_is_kept(store: Store) -> None:
    tasks = [new_task() for _ in range(20)]
    together(*[lambda: store.insert(tasks)] * 4)
    assert Task.objects.count() == 20


def test_a_task_is_not_seen_before_its_transaction_commits(store: Store) -> None:
    inserted, looked = threading.Event(), threading.Event()

    def producer() -> None:
        with transaction.atomic():
            insert(store)
            inserted.set()
            assert looked.wait(DEADLINE)

    def looker() -> int:
        assert inserted.wait(DEADLINE)
        try:
            # Another writer would have to wait for the transaction on SQLite.
            return Task.objects.count()
        finally:
            looked.set()

    _, seen = together(producer, looker)
    assert seen == 0
    assert len(claim(store, 1, OTHER_WORKER)) == 1
