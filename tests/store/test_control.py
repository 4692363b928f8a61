"""Revoke, requeue, turns at chores, pruning, and due tasks."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db.models import F
from django.test import override_settings

from django_jobs.ids import uuid7
from django_jobs.models import Attempt, DeadLetter, Maintenance, Result, Task
from django_jobs.states import State, Verdict
from django_jobs.store import Store
from django_jobs.store.control import NEAREST
from tests.store.samples import (
    ERROR,
    WORKER,
    claim,
    claim_new,
    complete,
    insert,
    on_both,
    places,
)

pytestmark = on_both


def kill(store: Store, count: int = 1) -> list[str]:
    """Make dead letters, each with an attempt."""
    tasks = claim_new(store, count)
    for task in tasks:
        complete(store, task, Verdict.FAILED, error=ERROR)
    return [task.id for task in tasks]


# -- promote -----------------------------------------------------------------------


def test_due_tasks_are_promoted(store: Store) -> None:
    ids = insert(store, 3, delay=60.0)
    (later,) = insert(store, delay=60.0)
    Task.objects.filter(pk__in=ids).update(
        run_after=F("run_after") - timedelta(minutes=2)
    )
    assert store.promote() == 3
    assert store.promote() == 0
    assert [task.id for task in claim(store)] == ids
    assert Task.objects.get(state="SCHEDULED").pk.hex == later.replace("-", "")


def test_the_longest_due_are_promoted_first(store: Store) -> None:
    ids = insert(store, 3, delay=60.0)
    for number, task_id in enumerate(ids):
        due = store.now() - timedelta(minutes=number)
        Task.objects.filter(pk=task_id).update(run_after=due)
    assert store.promote(2) == 2
    assert str(Task.objects.get(state="SCHEDULED").pk) == ids[0]


def test_the_next_time_due_is_told_in_seconds(store: Store) -> None:
    insert(store)
    assert store.next_due() is None
    insert(store, delay=500.0)
    insert(store, delay=100.0)
    assert store.next_due() == pytest.approx(100, abs=5)
    Task.objects.update(run_after=store.now() - timedelta(hours=1))
    assert store.next_due() == 0


# -- adopt -------------------------------------------------------------------------


def give_back(store: Store, name: str, count: int = 1, delay: float = 5.0) -> list[str]:
    """Have a worker give back tasks that it does not know."""
    tasks = claim_new(store, count, name=name)
    for task in tasks:
        complete(store, task, Verdict.UNKNOWN, delay=delay)
    return [task.id for task in tasks]


def test_who_knows_them_adopts_tasks_that_others_gave_back(store: Store) -> None:
    ids = give_back(store, "app.tasks.new", 3)
    give_back(store, "app.tasks.newer")
    asked = []

    def is_ours(queue: str, name: str) -> bool:
        asked.append((queue, name))
        return name == "app.tasks.new"

    assert store.adopt(7.5, is_ours) == 3
    new, newer = ("default", "app.tasks.new"), ("default", "app.tasks.newer")
    assert sorted(asked) == [new, newer]
    assert [task.id for task in claim(store)] == ids
    assert store.adopt(7.5, is_ours) == 0


def test_what_is_adopted_is_due_now_and_still_known_to_be_unknown(store: Store) -> None:
    give_back(store, "app.tasks.new")
    since = Task.objects.get().unknown_since
    assert store.adopt(7.5, lambda queue, name: True) == 1
    task = Task.objects.get()
    assert (task.state, task.attempt, task.unknown_since) == ("READY", 0, since)
    assert task.run_after <= store.now()


def test_what_waits_for_another_reason_is_not_adopted(store: Store) -> None:
    (retried,) = claim_new(store, name="app.tasks.new")
    complete(store, retried, Verdict.RETRY, delay=5.0)
    insert(store, delay=5.0, name="app.tasks.new")
    give_back(store, "app.tasks.new", delay=20.0)
    assert store.adopt(7.5, lambda queue, name: True) == 0
    (stray,) = give_back(store, "app.tasks.new")
    assert store.adopt(7.5, lambda queue, name: True) == 1
    assert [task.id for task in claim(store)] == [stray]


def test_only_the_nearest_are_looked_through(store: Store) -> None:
    insert(store, NEAREST, delay=60.0)
    (near,) = give_back(store, "app.tasks.new", delay=50.0)
    give_back(store, "app.tasks.new", delay=70.0)
    assert store.adopt(100.0, lambda queue, name: True) == 1
    assert [task.id for task in claim(store)] == [near]
    assert store.adopt(100.0, lambda queue, name: True) == 0


def test_what_is_overdue_is_not_in_the_way(store: Store) -> None:
    insert(store, NEAREST, delay=60.0)
    Task.objects.update(run_after=store.now() - timedelta(seconds=1))
    give_back(store, "app.tasks.new")
    assert store.adopt(7.5, lambda queue, name: True) == 1


def test_as_many_are_adopted_at_once_as_is_said(store: Store) -> None:
    give_back(store, "app.tasks.new", 3)
    assert store.adopt(7.5, lambda queue, name: True, 2) == 2


# -- revoke ------------------------------------------------------------------------


def test_a_waiting_task_is_revoked_at_once(store: Store) -> None:
    ids = [*insert(store, 2), *insert(store, delay=60.0)]
    assert store.revoke(ids) == dict.fromkeys(ids, "revoked")
    result = Result.objects.first()
    assert result is not None
    assert (result.state, result.started_at) == (State.REVOKED, None)
    assert result.prune_at == result.finished_at + timedelta(days=7)
    assert claim(store) == []


def test_a_blocked_task_is_revoked_at_once(store: Store) -> None:
    (task_id,) = insert(store)
    Task.objects.update(state=State.BLOCKED)
    assert store.revoke([task_id]) == {task_id: "revoked"}


@override_settings(DJANGO_JOBS={"RESULT_RETENTION": None})
def test_revoked_tasks_may_be_kept_for_ever(store: Store) -> None:
    store.revoke(insert(store))
    assert Result.objects.get().prune_at is None


def test_a_running_task_is_asked_to_stop(store: Store) -> None:
    (task,) = claim_new(store)
    assert store.revoke([task.id]) == {task.id: "requested"}
    assert store.revoke([task.id]) == {task.id: "requested"}
    record = store.fetch(task.id)
    assert record is not None
    assert record.revoke_requested


def test_finished_and_missing_tasks_are_told_apart(store: Store) -> None:
    (task,) = claim_new(store)
    complete(store, task)
    (dead,) = kill(store)
    ids = [task.id, dead, str(uuid7())]
    assert store.revoke(ids) == {task.id: "finished", dead: "finished"}
    assert store.revoke([]) == {}


# -- requeue -----------------------------------------------------------------------


def test_a_dead_letter_goes_back_to_work_with_fresh_budgets(store: Store) -> None:
    insert(store, queue_name="q", priority=4, metadata='{"a": 1}')
    (task,) = claim(store)
    complete(store, task, Verdict.CRASHED)
    (task,) = claim(store)
    complete(store, task, Verdict.FAILED, error=ERROR)
    assert store.requeue([task.id]) == [task.id]
    assert places(task.id) == ["Task"]
    (again,) = claim(store)
    assert (again.attempt, again.crashes, again.lease) == (1, 0, 3)
    assert again[5:] == task[5:]


def test_the_attempts_before_a_requeue_stay_as_history(store: Store) -> None:
    (dead,) = kill(store)
    assert [each.requeued_at for each in store.attempts(dead)] == [None]
    store.requeue([dead])
    first = store.fetch(dead)
    assert first is not None
    assert (first.attempt, first.errors, first.worker_ids) == (0, [], [])
    (again,) = claim(store)
    complete(store, again, Verdict.FAILED, error=ERROR)
    lines = store.attempts(dead)
    assert [each.number for each in lines] == [1, 1]
    assert [each.requeued_at is None for each in lines] == [False, True]
    second = store.fetch(dead)
    assert second is not None
    assert (len(second.errors), len(second.worker_ids)) == (1, 1)
    closed = lines[0].requeued_at
    store.requeue([dead])
    assert store.attempts(dead)[0].requeued_at == closed


def test_only_dead_letters_are_requeued(store: Store) -> None:
    (waiting,) = insert(store, delay=60.0)
    (dead,) = kill(store)
    assert store.requeue([waiting, str(uuid7()), dead, dead]) == [dead]
    assert store.requeue([]) == []


# -- chores ------------------------------------------------------------------------


def test_one_caller_gets_the_turn_at_a_chore(store: Store) -> None:
    assert [store.claim_chore("prune", 60) for _ in range(3)] == [True, False, False]
    assert store.claim_chore("other", 60)
    Maintenance.objects.update(last_run_at=store.now() - timedelta(seconds=61))
    assert [store.claim_chore("prune", 60) for _ in range(2)] == [True, False]


# -- prune -------------------------------------------------------------------------


def finish(store: Store, count: int, retention: float | None) -> None:
    for task in claim_new(store, count):
        complete(store, task, retention=retention)


def test_what_is_past_its_retention_is_deleted(store: Store) -> None:
    finish(store, 3, 0.0)
    finish(store, 2, 60.0)
    finish(store, 1, None)
    kill(store, 2)
    DeadLetter.objects.update(prune_at=store.now() - timedelta(seconds=1))
    assert store.prune() == 5
    assert (Result.objects.count(), DeadLetter.objects.count()) == (3, 0)
    assert not Attempt.objects.exists()


def test_pruning_has_a_limit(store: Store) -> None:
    finish(store, 5, 0.0)
    kill(store, 2)
    DeadLetter.objects.update(prune_at=store.now() - timedelta(seconds=1))
    assert [store.prune(3) for _ in range(4)] == [3, 3, 1, 0]


def test_an_age_overrides_the_retention(store: Store) -> None:
    finish(store, 3, None)
    (dead,) = kill(store)
    assert store.prune(older_than=60) == 0
    Result.objects.update(finished_at=store.now() - timedelta(seconds=61))
    assert store.prune(older_than=60) == 3
    assert store.prune(older_than=0) == 1
    assert places(dead) == []


def test_attempts_of_living_tasks_are_not_pruned(store: Store) -> None:
    (task,) = claim_new(store)
    complete(store, task, Verdict.RETRY, delay=60.0)
    finish(store, 1, 0.0)
    assert store.prune() == 1
    assert Attempt.objects.count() == 1
    assert store.sign_off(WORKER) == 0
