"""Claim and complete: what every store promises a worker."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from itertools import product

import pytest
from django.db import transaction

from django_jobs.models import Result, Task
from django_jobs.records import Cycle, Demand
from django_jobs.states import MOVES, State, Verdict
from django_jobs.store import Store
from tests.store.samples import (
    OTHER_WORKER,
    WORKER,
    claim,
    claim_new,
    complete,
    insert,
    new_task,
    on_both,
    outcome,
    places,
)

pytestmark = on_both

# -- claim -------------------------------------------------------------------------


def test_a_claim_marks_the_task_as_running(store: Store) -> None:
    before = store.now()
    claim_new(store)
    row = Task.objects.get()
    assert (row.state, row.attempt, row.lease) == (State.RUNNING, 1, 1)
    assert str(row.worker_id) == WORKER
    assert row.last_attempted_at is not None
    assert before <= row.last_attempted_at <= store.now()
    assert row.started_at is None


def test_tasks_are_claimed_by_priority_then_time_then_id(store: Store) -> None:
    low, normal, high = (
        insert(store, 3, priority=priority) for priority in (-100, 0, 100)
    )
    assert [task.id for task in claim(store)] == [*high, *normal, *low]


def test_a_task_is_claimed_once(store: Store) -> None:
    ids = insert(store, 5)
    first, second = claim(store, 3), claim(store, 3, OTHER_WORKER)
    assert [task.id for task in [*first, *second]] == ids
    assert claim(store) == []


@pytest.mark.parametrize("demand", [None, Demand(0)])
def test_without_room_nothing_is_claimed(store: Store, demand: Demand | None) -> None:
    insert(store)
    assert store.cycle(WORKER, [], demand) == Cycle([], [])


def test_only_the_queues_asked_for_are_claimed_from(store: Store) -> None:
    insert(store, queue_name="a")
    (wanted,) = insert(store, queue_name="b")
    assert [task.id for task in claim(store, queues=("b",))] == [wanted]
    assert claim(store, queues=("b", "c")) == []


def test_several_queues_are_merged_by_priority_and_time(store: Store) -> None:
    tasks = [
        new_task(queue_name=queue_name, priority=priority)
        for queue_name, priority in [("a", 0), ("b", 5), ("c", 9), ("b", 0), ("a", 5)]
    ]
    ids = [insert_one(store, task) for task in tasks]
    claimed = claim(store, 3, queues=("a", "b"))
    assert [task.id for task in claimed] == [ids[1], ids[4], ids[0]]
    assert [task.id for task in claim(store, 3, queues=("b", "a"))] == [ids[3]]


def insert_one(store: Store, task: object) -> str:
    store.insert([task])  # type: ignore[list-item]
    return task.id  # type: ignore[attr-defined]


def test_strict_queues_come_one_after_the_other(store: Store) -> None:
    late = insert(store, 3, queue_name="z", priority=100)
    first = insert(store, 2, queue_name="m", priority=-100)
    claimed = claim(store, 4, queues=("m", "none", "z"), is_strict=True)
    assert [task.id for task in claimed] == [*first, *late[:2]]


def test_strict_queues_leave_the_later_ones_alone(store: Store) -> None:
    insert(store, 3, queue_name="first")
    insert(store, 3, queue_name="second")
    claimed = claim(store, 3, queues=("first", "second"), is_strict=True)
    assert {task.queue_name for task in claimed} == {"first"}
    assert store.depths()["second", "READY"] == 3


def test_without_names_all_queues_but_the_excluded_are_asked(store: Store) -> None:
    for name in ("a", "b", "c", "d"):
        insert(store, 2, queue_name=name)
    claimed = claim(store, 10, exclude=("b", "d"))
    assert [task.queue_name for task in claimed] == ["a", "a", "c", "c"]
    assert len(claim(store, 3)) == 3


def test_a_queue_that_is_new_is_found(store: Store) -> None:
    for name in ("m", "z", "a", "q", "a"):
        (task_id,) = insert(store, queue_name=name)
        assert [task.id for task in claim(store)] == [task_id]


@pytest.mark.parametrize("name", ["50%", "it's", "ü", "x" * 100])
def test_a_queue_may_have_any_name(store: Store, name: str) -> None:
    insert(store, queue_name=name)
    insert(store, queue_name="other")
    assert [task.queue_name for task in claim(store, 1, queues=(name,))] == [name]


# -- complete ----------------------------------------------------------------------


def test_a_successful_task_becomes_a_result(store: Store) -> None:
    (task,) = claim_new(store, queue_name="q", priority=3, metadata='{"a": 1}')
    assert complete(store, task, return_value="42", log="said", retention=60.0) == []
    result = Result.objects.get()
    assert places(task.id) == ["Result"]
    assert (result.state, result.return_value, result.log) == (
        "SUCCESSFUL",
        "42",
        "said",
    )
    assert (result.queue_name, result.priority, result.metadata) == ("q", 3, '{"a": 1}')
    assert (result.attempt, result.lease, str(result.worker_id)) == (1, 1, WORKER)


def test_metadata_of_the_outcome_replaces_that_of_the_task(store: Store) -> None:
    (task,) = claim_new(store, metadata='{"a": 1}')
    complete(store, task, metadata='{"b": 2}')
    assert Result.objects.get().metadata == '{"b": 2}'


def test_the_times_of_a_run_are_reckoned_from_the_databases_clock(store: Store) -> None:
    (task,) = claim_new(store)
    now = store.now()
    Task.objects.update(last_attempted_at=now - timedelta(seconds=60))
    past = time.monotonic()
    complete(store, task, started=past - 20, finished=past - 5, retention=100.0)
    result = Result.objects.get()
    expected = {
        "started_at": -20,
        "last_attempted_at": -20,
        "finished_at": -5,
        "prune_at": 95,
    }
    for name, seconds in expected.items():
        error = getattr(result, name) - (now + timedelta(seconds=seconds))
        assert abs(error) < timedelta(seconds=1), name


def test_no_run_starts_before_its_claim(store: Store) -> None:
    (task,) = claim_new(store)
    claimed_at = Task.objects.get().last_attempted_at
    complete(store, task, started=time.monotonic() - 3600)
    assert Result.objects.get().started_at == claimed_at


@pytest.mark.parametrize("retention", [None, 0.0, 1e300])
def test_a_result_may_be_kept_for_any_time(
    store: Store, retention: float | None
) -> None:
    (task,) = claim_new(store)
    complete(store, task, retention=retention)
    prune_at = Result.objects.get().prune_at
    assert (prune_at is None) is (retention is None)
    assert (prune_at or datetime.max.replace(tzinfo=UTC)) > store.now() - timedelta(
        seconds=5
    )


def test_completion_and_claim_are_one_call(store: Store) -> None:
    first = claim_new(store, 3)
    insert(store, 4)
    outcomes = [outcome(task) for task in first]
    claimed, stale, _ = store.cycle(WORKER, outcomes, Demand(10))
    assert (len(claimed), stale) == (4, [])
    assert Result.objects.count() == 3


@pytest.mark.parametrize(
    "changes", [{"lease": 2}, {"worker": OTHER_WORKER}], ids=["lease", "worker"]
)
def test_the_outcome_of_a_run_without_a_lease_is_rejected(
    store: Store, changes: dict[str, object]
) -> None:
    (task,) = claim_new(store)
    assert complete(store, task, **changes) == [task.id]  # type: ignore[arg-type]
    assert Task.objects.get().state == State.RUNNING


def test_an_outcome_counts_once(store: Store) -> None:
    (task,) = claim_new(store)
    assert complete(store, task) == []
    assert complete(store, task) == [task.id]
    (other,) = claim_new(store)
    assert store.cycle(WORKER, [outcome(other), outcome(other)], None).stale == [
        other.id
    ]
    assert Result.objects.count() == 2


def test_two_outcomes_of_a_task_do_not_hide_each_other(store: Store) -> None:
    (task,) = claim_new(store)
    outcomes = [outcome(task, lease=0), outcome(task), outcome(task, lease=0)]
    assert store.cycle(WORKER, outcomes, None).stale == [task.id] * 2
    assert places(task.id) == ["Result"]


def test_a_stale_outcome_costs_only_itself(store: Store) -> None:
    tasks = claim_new(store, 4)
    outcomes = [outcome(task) for task in tasks]
    outcomes[1] = outcomes[1]._replace(lease=9)
    assert store.cycle(WORKER, outcomes, None).stale == [tasks[1].id]
    assert [places(task.id) for task in tasks] == [
        ["Result"],
        ["Task"],
        ["Result"],
        ["Result"],
    ]


def test_what_an_atomic_task_recorded_is_neither_written_nor_stale(
    store: Store,
) -> None:
    (task,) = claim_new(store)
    assert complete(store, task, recorded=True) == []
    assert places(task.id) == ["Task"]


def test_a_task_completes_inside_the_callers_transaction(store: Store) -> None:
    kept, undone = claim_new(store, 2)
    with transaction.atomic():
        assert store.complete_here(WORKER, outcome(kept))
        assert not store.complete_here(OTHER_WORKER, outcome(undone))
    with pytest.raises(KeyError), transaction.atomic():
        assert store.complete_here(WORKER, outcome(undone))
        raise KeyError
    assert (places(kept.id), places(undone.id)) == (["Result"], ["Task"])


def test_a_cycle_works_inside_a_transaction_too(store: Store) -> None:
    with transaction.atomic():
        task, *_ = claim_new(store, 2)
        insert(store, 3)
        claimed = store.cycle(WORKER, [outcome(task)], Demand(2)).claimed
    assert len(claimed) == 2
    assert places(task.id) == ["Result"]


def test_many_tasks_complete_at_once(store: Store) -> None:
    tasks = claim_new(store, 700)
    assert store.cycle(WORKER, [outcome(task) for task in tasks], None) == Cycle([], [])
    assert Result.objects.count() == 700
    assert not Task.objects.exists()


def test_a_result_that_is_there_already_is_left_alone(store: Store) -> None:
    (task,) = claim_new(store)
    complete(store, task, return_value="1")
    store.insert([new_task(id=task.id)])
    (again,) = claim(store)
    complete(store, again, return_value="2")
    assert places(task.id) == ["Result"]
    assert Result.objects.get().return_value == "1"


def test_tasks_make_exactly_the_moves_that_are_allowed(store: Store) -> None:
    moves: set[tuple[State, State]] = set()

    def after(task_id: str, start: State) -> State:
        record = store.fetch(task_id)
        assert record is not None
        moves.add((start, State(record.state)))
        return State(record.state)

    for verdict, delay in product(Verdict, [0.0, 60.0]):
        (task,) = claim_new(store)
        after(task.id, State.READY)
        complete(store, task, verdict, delay=delay)
        end = after(task.id, State.RUNNING)
        Task.objects.filter(pk=task.id).update(run_after=store.now())
        if end is State.SCHEDULED and verdict is not Verdict.SNOOZED:
            store.promote()
            end = after(task.id, end)
        if store.revoke([task.id])[task.id] == "revoked" or store.requeue([task.id]):
            after(task.id, end)
            store.revoke([task.id])

    # Nothing blocks a task yet.
    allowed = {start: ends for start, ends in MOVES.items() if start != State.BLOCKED}
    assert moves == {(start, end) for start, ends in allowed.items() for end in ends}
