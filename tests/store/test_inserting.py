"""Insert: what every store promises a producer."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from django.db import DataError, connection, connections, transaction

from django_jobs.models import Task
from django_jobs.states import State, Verdict
from django_jobs.store import Store
from django_jobs.store.inserting import MOST_CHARACTERS, in_chunks
from tests.statements import Call, watched
from tests.store.samples import (
    claim,
    complete,
    insert,
    new_task,
    on_both,
    places,
)

pytestmark = on_both

M = MOST_CHARACTERS


def test_a_task_comes_back_as_it_was_inserted(store: Store) -> None:
    given = new_task(
        queue_name="mail",
        priority=-7,
        args='["\\u0000", "\\ud800", 1e400]',
        kwargs='{"key": "value"}',
        time_limit=2.5,
        metadata='{"a": 1}',
        headers='{"language": "de"}',
    )
    store.insert([given])
    (task,) = claim(store)
    assert task[:3] == (given.id, 1, 1)
    assert (
        task._asdict().items()
        >= {
            **{
                key: value
                for key, value in given._asdict().items()
                if key in task._fields
            },
            "crashes": 0,
            "is_expired": False,
        }.items()
    )


@pytest.mark.parametrize(
    "text", ["Grüße, 世界 🎉", "50% of %s \\ 'quoted' \"twice\"", "{x}"]
)
def test_any_text_comes_back(store: Store, text: str) -> None:
    insert(store, summary=text, metadata=text)
    assert Task.objects.get().summary == text
    assert claim(store)[0].metadata == text


def test_insert_returns_the_time_of_the_database(store: Store) -> None:
    before = store.now()
    moment = store.insert([new_task()])
    assert before <= moment <= store.now()
    assert abs(moment - datetime.now(UTC)) < timedelta(seconds=60)


@pytest.mark.parametrize("count", [1, 2, 450])
def test_inserted_tasks_are_enqueued_at_the_time_returned(
    store: Store, count: int
) -> None:
    moment = store.insert([new_task() for _ in range(count)])
    assert Task.objects.filter(enqueued_at__gte=moment, attempt=0).count() == count
    first = Task.objects.earliest("enqueued_at")
    assert first.enqueued_at == first.run_after == moment


def test_inserting_nothing_returns_the_time(store: Store) -> None:
    assert abs(store.insert([]) - store.now()) < timedelta(seconds=5)


@pytest.mark.parametrize("copies", [1, 3])
def test_a_repeated_insert_does_not_double(store: Store, copies: int) -> None:
    tasks = [new_task() for _ in range(copies)]
    first = store.insert(tasks)
    again = store.insert(tasks)
    assert Task.objects.count() == copies
    assert first <= again <= store.now()


def test_a_task_that_ran_meanwhile_is_not_inserted_again(store: Store) -> None:
    tasks = [new_task() for _ in range(3)]
    store.insert(tasks)
    claimed = claim(store, 2)
    complete(store, claimed[0])
    complete(store, claimed[1], Verdict.FAILED)
    store.insert(tasks, again=True)
    assert [len(places(task.id)) for task in tasks] == [1, 1, 1]
    store.insert(tasks[:2], again=True)
    assert Task.objects.count() == 1


@pytest.mark.parametrize("place", range(4))
def test_a_task_that_is_completed_while_it_is_inserted_again_is_not_doubled(
    store: Store, place: int
) -> None:
    task = new_task()
    store.insert([task])
    (claimed,) = claim(store)
    calls = []

    @contextmanager
    def completing(call: Call) -> Iterator[None]:
        """Have the task completed by others before the call of that place."""
        if threading.get_ident() == repeating:
            calls.append(call)
            if len(calls) == place + 1:
                thread.start()
                # It may have to wait for locks that are held here.
                thread.join(0.3)
        yield

    def complete_elsewhere() -> None:
        complete(store, claimed)
        connections.close_all()

    repeating = 0
    thread = threading.Thread(target=complete_elsewhere)
    with watched(completing):
        connection.ensure_connection()
        repeating = threading.get_ident()
        store.insert([task], again=True)
        thread.join(20)
    assert len(calls) > place
    assert places(task.id) == ["Result"]


def test_an_insert_is_undone_with_the_callers_transaction(store: Store) -> None:
    with pytest.raises(KeyError), transaction.atomic():
        insert(store, 300)
        raise KeyError
    assert not Task.objects.exists()


def test_an_insert_of_many_is_all_or_nothing(store: Store) -> None:
    tasks = [new_task() for _ in range(6000)]
    tasks[-1] = tasks[-1]._replace(args='["\ud800"]')
    with pytest.raises((ValueError, DataError)):
        store.insert(tasks)
    assert not Task.objects.exists()


def test_large_tasks_are_inserted_together(store: Store) -> None:
    argument = f'["{"x" * 256_000}"]'
    insert(store, 20, args=argument)
    assert {task.args for task in claim(store, 20)} == {argument}


@pytest.mark.parametrize(
    ("lengths", "sizes"),
    [
        ([], []),
        ([9], [1]),
        ([1] * 7, [3, 3, 1]),
        ([M, M, 1], [1, 1, 1]),
        ([1, M], [1, 1]),
    ],
)
def test_a_statement_takes_so_many_rows_and_so_much_text(
    lengths: list[int], sizes: list[int]
) -> None:
    rows = [("x" * length, None, 5) for length in lengths]
    assert [len(chunk) for chunk in in_chunks(rows, 3)] == sizes


def test_what_the_database_refuses_is_not_hidden(store: Store) -> None:
    if connection.vendor == "sqlite":
        pytest.skip("SQLite stores texts of any length in any column")
    with pytest.raises(DataError):
        store.insert([new_task(name="x" * 300)])


def test_a_task_due_later_is_scheduled(store: Store) -> None:
    later = store.now() + timedelta(hours=1)
    insert(store, run_after=later)
    insert(store, delay=3600.0)
    assert claim(store) == []
    due = Task.objects.filter(state=State.SCHEDULED).values_list("run_after", flat=True)
    assert all(abs(each - later) < timedelta(seconds=5) for each in due)
    assert len(due) == 2


def test_a_time_in_the_past_means_now(store: Store) -> None:
    (first,) = insert(store)
    (late,) = insert(store, run_after=store.now() - timedelta(days=1))
    (zero,) = insert(store, delay=0.0)
    assert [task.id for task in claim(store)] == [first, late, zero]


def test_tasks_inserted_together_have_times_of_their_own(store: Store) -> None:
    now = store.now()
    tasks = [
        new_task(),
        new_task(run_after=now - timedelta(days=1), expires_in=0.0),
        new_task(delay=0.0, expires=now + timedelta(hours=1)),
        new_task(delay=50.0, expires_in=100.0),
        new_task(run_after=now + timedelta(seconds=50)),
    ]
    moment = store.insert(tasks)
    claimed = claim(store)
    assert [task.id for task in claimed] == [task.id for task in tasks[:3]]
    assert [task.is_expired for task in claimed] == [False, True, False]
    waits = [
        (row.run_after - moment).total_seconds() for row in Task.objects.order_by("pk")
    ]
    assert waits == pytest.approx([0, 0, 0, 50, 50], abs=5)
    assert min(waits) == 0


def test_a_task_claimed_after_its_expiry_says_so(store: Store) -> None:
    past = store.now() - timedelta(seconds=1)
    (gone,) = insert(store, expires=past)
    (over,) = insert(store, expires_in=0.0)
    insert(store, expires_in=60.0)
    insert(store, expires=store.now() + timedelta(minutes=1))
    expired = {task.id for task in claim(store) if task.is_expired}
    assert expired == {gone, over}
