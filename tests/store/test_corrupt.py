"""Rows that were written by hand, past all checks: none of them stops the others."""

from __future__ import annotations

import pytest
from django.db import connections

from django_jobs.models import DeadLetter, Result, Task, Worker
from django_jobs.states import Reason, Verdict
from django_jobs.store import Store, quarantine
from tests.store.samples import (
    WORKER,
    be_alive,
    claim,
    claim_new,
    complete,
    insert,
    on_both,
    outcome,
    set_by_hand,
)

pytestmark = on_both

#: Columns, and values that fit into them and leave no room for one more.
FULL = {
    "lease": 2_147_483_647,
    "attempt": 2_147_483_647,
}


#: Times that the database takes and Python has no value for.
STRANGE_TIMES: dict[str, list[object]] = {
    "postgresql": ["infinity", "-infinity", "0044-03-15 12:00 BC"],
    "mysql": ["0000-00-00 00:00:00"],
    "sqlite": ["yesterday", "", 5, b"\0\xff"],
}
#: Values of types that only SQLite lets into these columns.
OF_WRONG_TYPES: dict[str, object] = {
    "id": "abc",
    "name": b"\0\xff",
    "queue_name": b"default",
    "args": b"[1]",
    "kwargs": b"\xff",
    "headers": b"{}",
    "order_key": "abc",
    "attempt": 1.5,
    "crashes": b"1",
    "max_attempts": "many",
    "time_limit": "a minute",
}


def _strange_times(store: Store) -> list[object]:
    return STRANGE_TIMES[connections[store.alias].vendor]


def _only_on_sqlite(store: Store) -> None:
    if connections[store.alias].vendor != "sqlite":
        pytest.skip("the database takes nothing else into these columns")


@pytest.mark.parametrize("column", FULL)
def test_a_number_that_cannot_grow_does_not_stop_the_claims(
    store: Store, column: str
) -> None:
    full, other = insert(store, 2)
    set_by_hand(store, full, column, FULL[column])
    assert other in {task.id for task in claim(store)}


def test_crashes_that_cannot_grow_do_not_stop_the_rescue(store: Store) -> None:
    full, other = insert(store, 2)
    claim(store)
    Worker.objects.all().delete()
    set_by_hand(store, full, "crashes", 32_767)
    assert set(store.rescue()) == {full, other}
    assert Task.objects.filter(pk=other, state="READY").exists()


@pytest.mark.parametrize("value", ["0001-01-01 00:00:00", "9999-12-31 23:59:59"])
def test_a_time_at_the_edge_does_not_stop_the_promotion(
    store: Store, value: str
) -> None:
    edge, _ = insert(store, 2, delay=100.0)
    set_by_hand(store, edge, "run_after", value)
    assert store.next_due() is not None
    store.promote()
    assert Task.objects.count() == 2


def test_a_time_that_python_has_no_value_for_hides_no_other(store: Store) -> None:
    for value in _strange_times(store):
        strange, due = insert(store, 2, delay=100.0)
        set_by_hand(store, strange, "run_after", value)
        assert store.next_due() is not None
        Task.objects.filter(pk=due).update(run_after=store.now())
        assert store.next_due() == 0
        store.promote()
        assert due in {task.id for task in claim(store)}


def test_such_a_time_does_not_stop_the_claims_from_several_queues(store: Store) -> None:
    for number, value in enumerate(_strange_times(store)):
        [strange] = insert(store, queue_name=f"a{number}")
        set_by_hand(store, strange, "run_after", value)
        others = [*insert(store, queue_name=f"b{number}"), *insert(store)]
        assert {task.id for task in claim(store)} >= set(others)


@pytest.mark.parametrize("column", OF_WRONG_TYPES)
def test_a_value_of_a_wrong_type_costs_its_row_alone(store: Store, column: str) -> None:
    _only_on_sqlite(store)
    bad, _ = insert(store, 2)
    [other] = insert(store, queue_name="other")
    set_by_hand(store, bad, column, OF_WRONG_TYPES[column])
    assert other in {task.id for task in claim(store)}
    letter = DeadLetter.objects.get()
    assert letter.reason == Reason.CORRUPT
    assert letter.message.endswith(f"cannot be read: {column}")
    assert Task.objects.filter(state="RUNNING").count() == 2


@pytest.mark.parametrize("column", ["name", "queue_name", "args", "summary", "id"])
def test_a_text_that_is_none_costs_its_row_alone(store: Store, column: str) -> None:
    _only_on_sqlite(store)
    bad, other = insert(store, 2)
    set_by_hand(store, other, "name", "app.t\xe4sks.\u4e2d")  # that is one
    # Some columns are not read in a claim: then this is what fails.
    set_by_hand(store, bad, "order_key", "abc")
    set_by_hand(store, bad, column, b"\xff[", "CAST(%s AS TEXT)")
    assert [task.id for task in claim(store)] == [other]
    letter = DeadLetter.objects.get()
    assert letter.message.endswith(f"cannot be read: {column}, order_key")
    assert column == "id" or getattr(letter, column) == "\\xff["


def test_rows_that_cannot_be_read_do_not_stop_the_rescue(store: Store) -> None:
    _only_on_sqlite(store)
    bad, other = insert(store, 2)
    claim(store)
    Worker.objects.all().delete()
    set_by_hand(store, bad, "crashes", "abc")
    assert store.rescue() == [other]
    assert str(DeadLetter.objects.get().pk) == bad


def test_rows_that_cannot_be_read_do_not_stop_the_outcomes(store: Store) -> None:
    _only_on_sqlite(store)
    bad, other = claim_new(store, 2)
    set_by_hand(store, bad.id, "crashes", "abc")
    crashes = [outcome(each, Verdict.CRASHED) for each in (bad, other)]
    assert store.cycle(WORKER, crashes, None).stale == [bad.id]
    assert Task.objects.get().state == "READY"


def test_a_row_whose_id_is_taken_gets_another_one(store: Store) -> None:
    _only_on_sqlite(store)
    ended, bad = claim_new(store, 2)
    complete(store, ended)
    set_by_hand(store, bad.id, "state", "READY")
    set_by_hand(store, bad.id, "order_key", "abc")
    set_by_hand(store, bad.id, "id", store.to_id(ended.id))  # type: ignore[attr-defined]
    assert claim(store) == []
    assert str(DeadLetter.objects.get().pk) not in (ended.id, bad.id)


def test_the_look_for_bad_rows_is_bounded_and_goes_on(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    _only_on_sqlite(store)
    bad = insert(store, 3)[2]
    set_by_hand(store, bad, "order_key", "abc")
    monkeypatch.setattr(quarantine, "SLICE", 1)
    monkeypatch.setattr(quarantine, "LONGEST_LOOK", -1.0)
    looks = [store.put_aside() for _ in range(4)]  # type: ignore[attr-defined]
    # One row at a time; then it starts anew.
    assert looks == [0, 0, 1, 0]
    assert store.put_aside() == 0  # type: ignore[attr-defined]
    assert Task.objects.count() == 2


def test_an_error_that_is_of_no_row_comes_out(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    be_alive(store)
    insert(store)

    def fail(*args: object) -> None:
        raise TypeError("a mistake of ours")

    monkeypatch.setattr(store, "_claim", fail)
    monkeypatch.setattr(store, "_one_trip", fail, raising=False)
    with pytest.raises(TypeError, match="a mistake of ours"):
        claim(store)
    assert Task.objects.count() == 1


def test_a_result_that_is_there_already_takes_no_other_along(store: Store) -> None:
    twice, renamed, other = claim_new(store, 3)
    complete(store, twice)
    set_by_hand(store, renamed.id, "id", store.to_id(twice.id))  # type: ignore[attr-defined]
    outcomes = [outcome(renamed, id=twice.id), outcome(other)]
    # The first end of a task stands.
    assert store.cycle(WORKER, outcomes, None).stale == [twice.id]
    assert Result.objects.filter(pk=other.id).exists()
    assert Result.objects.count() == 2
