"""Workers: leases, and the tasks of workers that are gone."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.test import override_settings

from django_jobs.models import Attempt, DeadLetter, Result, Task, Worker
from django_jobs.states import Reason, State, Verdict
from django_jobs.store import Store
from tests.store.samples import (
    OTHER_WORKER,
    WORKER,
    claim,
    claim_new,
    complete,
    die,
    insert,
    new_worker,
    on_both,
    places,
    verdicts,
)

pytestmark = on_both


def register(store: Store, worker_id: str = WORKER, lease: float = 30.0) -> str:
    store.register(new_worker(id=worker_id), lease)
    return worker_id


def test_a_worker_is_registered_with_all_that_it_says(store: Store) -> None:
    worker = new_worker(queues="a,b", boot="b", pid_start="9")
    store.register(worker, 30)
    row = Worker.objects.get()
    assert (str(row.pk), row.queues, row.coroutines) == (worker.id, "a,b", 10)
    assert row.expires_at - row.started_at == timedelta(seconds=30)
    assert store.workers_of_host("b") == [(worker.id, 7, "9")]


def test_a_repeated_registration_does_not_double(store: Store) -> None:
    register(store), register(store)
    assert Worker.objects.count() == 1


def test_a_lease_is_renewed_in_time(store: Store) -> None:
    register(store, lease=1.0)
    assert store.renew(WORKER, 60, state="stopping", running=3)
    row = Worker.objects.get()
    assert (row.state, row.running) == ("stopping", 3)
    assert row.expires_at - row.seen_at == timedelta(seconds=60)


def test_a_lease_that_is_over_is_not_renewed(store: Store) -> None:
    register(store, lease=0.0)
    # Unless a task of its own may have kept it from renewing in time.
    assert store.renew(WORKER, 60) is store.has_single_writer


def test_from_whom_something_was_taken_is_not_alive(store: Store) -> None:
    assert not store.is_alive(WORKER)
    register(store, lease=30.0)
    claim_new(store, 2)
    register(store, OTHER_WORKER)
    assert store.is_alive(WORKER)
    Worker.objects.filter(pk=WORKER).update(expires_at=store.now())
    assert len(store.rescue(limit=1)) == 1
    assert not store.is_alive(WORKER)
    assert store.is_alive(OTHER_WORKER)


def test_the_lease_of_a_worker_that_is_forgotten_is_not_renewed(store: Store) -> None:
    assert not store.renew(WORKER, 60)


def test_the_workers_of_another_boot_are_no_neighbours(store: Store) -> None:
    register(store)
    assert store.workers_of_host("another") == []


def test_a_worker_known_to_be_dead_loses_its_lease(store: Store) -> None:
    register(store), register(store, OTHER_WORKER)
    store.expire_workers([WORKER])
    store.expire_workers([])
    assert not store.renew(WORKER, 60)
    assert store.renew(OTHER_WORKER, 60)
    assert [each[0] for each in store.workers_of_host("boot")] == [OTHER_WORKER]


# -- sign off ------------------------------------------------------------------------


def test_a_worker_that_leaves_gives_back_what_it_has(store: Store) -> None:
    register(store), register(store, OTHER_WORKER)
    mine = claim_new(store, 2)
    insert(store)
    (other,) = claim(store, 1, OTHER_WORKER)
    assert store.sign_off(WORKER) == 2
    assert not Worker.objects.filter(pk=WORKER).exists()
    assert [(task.id, task.attempt) for task in claim(store)] == [
        (task.id, 1) for task in mine
    ]
    assert complete(store, other, worker=OTHER_WORKER) == []


def test_a_revoked_task_of_a_worker_that_leaves_is_revoked(store: Store) -> None:
    (task,) = claim_new(store)
    store.revoke([task.id])
    assert store.sign_off(WORKER) == 1
    assert Result.objects.get().state == State.REVOKED


# -- rescue --------------------------------------------------------------------------


def test_the_tasks_of_the_living_are_left_alone(store: Store) -> None:
    register(store)
    claim_new(store, 3)
    assert store.rescue() == []
    assert Task.objects.filter(state="RUNNING").count() == 3


@pytest.mark.parametrize("was_registered", [True, False])
def test_the_tasks_of_a_dead_worker_are_taken_back(
    store: Store, was_registered: bool
) -> None:
    (task,) = claim_new(store)
    if was_registered:
        die(store)
    else:
        Worker.objects.all().delete()
    claimed_at = Task.objects.get().last_attempted_at
    assert store.rescue() == [task.id]
    row, kept = Task.objects.get(), Attempt.objects.get()
    assert (row.state, row.attempt, row.crashes) == (State.READY, 1, 1)
    assert row.started_at == kept.started_at == claimed_at
    assert kept.exception_class == "django_jobs.exceptions.WorkerLost"
    assert not Worker.objects.exists()
    assert complete(store, task) == [task.id]


@override_settings(DJANGO_JOBS={"CRASH_BUDGET": 2})
def test_a_task_whose_workers_die_becomes_a_dead_letter(store: Store) -> None:
    (task,) = claim_new(store)
    die(store)
    assert store.rescue() == [task.id]
    assert len(claim(store)) == 1
    die(store)
    assert store.rescue() == [task.id]
    assert DeadLetter.objects.get().reason == Reason.CRASHES
    assert verdicts(task.id) == [Verdict.CRASHED] * 2


def test_a_revoked_task_of_a_dead_worker_is_revoked(store: Store) -> None:
    (task,) = claim_new(store)
    store.revoke([task.id])
    die(store)
    assert store.rescue() == [task.id]
    assert (places(task.id), verdicts(task.id)) == (["Result"], [Verdict.CRASHED])


def test_a_rescue_has_a_limit(store: Store) -> None:
    claim_new(store, 5)
    die(store)
    assert [len(store.rescue(3)), Worker.objects.count()] == [3, 1]
    assert [len(store.rescue(3)), Worker.objects.count()] == [2, 0]
    assert store.rescue(3) == []


def test_a_rescued_task_that_is_claimed_again_is_not_rescued_twice(
    store: Store,
) -> None:
    claim_new(store)
    die(store)
    store.rescue()
    assert len(claim(store, 1, OTHER_WORKER)) == 1
    assert store.rescue() == []


# -- a running task --------------------------------------------------------------------


def test_a_running_task_writes_its_metadata_and_progress(store: Store) -> None:
    (task,) = claim_new(store, metadata='{"a": 1}')
    assert store.save_metadata(WORKER, task.id, task.lease, progress="1")
    assert store.save_metadata(WORKER, task.id, task.lease, metadata="{}")
    row = Task.objects.get()
    assert (row.metadata, row.progress) == ("{}", "1")


def test_without_the_lease_nothing_is_written(store: Store) -> None:
    (task,) = claim_new(store)
    assert not store.save_metadata(WORKER, task.id, 9, metadata="no")
    assert not store.save_metadata(OTHER_WORKER, task.id, task.lease, metadata="no")
    assert Task.objects.get().metadata == "{}"


def test_a_worker_learns_which_of_its_tasks_shall_stop(store: Store) -> None:
    first, _ = claim_new(store, 2)
    insert(store)
    (other,) = claim(store, 1, OTHER_WORKER)
    store.revoke([first.id, other.id])
    assert store.revoke_requests(WORKER) == [first.id]
    assert store.revoke_requests(OTHER_WORKER) == [other.id]
