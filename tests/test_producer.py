"""The transaction rule: a task exists if and only if its transaction commits."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from importlib.machinery import ModuleSpec
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import (
    DatabaseError,
    OperationalError,
    connection,
    connections,
    transaction,
)
from django.db.utils import InterfaceError
from django.test import override_settings
from django.test.utils import CaptureQueriesContext

from django_jobs import (
    ResultError,
    TaskResult,
    definitions,
    enqueue_many,
    fetch_result,
    producer,
    task,
)
from django_jobs.exceptions import SetupError, UnreachableTask
from django_jobs.models import Task
from django_jobs.records import NewTask
from django_jobs.signals import task_enqueued
from django_jobs.store import get_store
from django_jobs.store.base import Store
from tests.sampleapp import tasks

BOTH = ["default", "other"]
on_both = pytest.mark.django_db(transaction=True, databases=BOTH)

#: The queue is on the other database than the caller's.
elsewhere = override_settings(DJANGO_JOBS={"DATABASE": "other"})

ALWAYS = {"ENQUEUE_ON_COMMIT": True}


class Oops(Exception):
    """Rolls a block back."""


def count(alias: str = "default") -> int:
    return Task.objects.using(alias).count()


def seen_by_others(alias: str = "default") -> int:
    """Count what another connection sees."""
    counts: list[int] = []

    def look() -> None:
        counts.append(count(alias))
        connections.close_all()

    thread = threading.Thread(target=look)
    thread.start()
    thread.join(timeout=30)
    return counts[0]


@pytest.fixture
def enqueued() -> Iterator[list[TaskResult[Any]]]:
    """The results that ``task_enqueued`` told of."""
    told: list[TaskResult[Any]] = []

    def receive(task_result: TaskResult[Any], **kwargs: Any) -> None:
        told.append(task_result)

    task_enqueued.connect(receive)
    yield told
    task_enqueued.disconnect(receive)


@pytest.fixture
def wake_ups(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tasks others saw at each wake-up; every database can notify here."""
    seen: list[int] = []
    dialect = type(get_store())
    monkeypatch.setattr(dialect, "can_notify", True)
    monkeypatch.setattr(dialect, "notify", lambda store: seen.append(len(seen) + 1))
    monkeypatch.setattr(producer, "_last_wake_up", {})
    return seen


@pytest.fixture
def inserts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tasks each insert had."""
    sizes: list[int] = []
    dialect = type(get_store())
    insert = dialect.insert

    def counted(store: Store, new: Sequence[NewTask]) -> Any:
        sizes.append(len(new))
        return insert(store, new)  # type: ignore[arg-type]

    monkeypatch.setattr(dialect, "insert", counted)
    return sizes


# -- the queue's own database ------------------------------------------------------


@on_both
def test_outside_a_transaction_a_task_is_there_at_once(
    enqueued: list[TaskResult[Any]], wake_ups: list[int]
) -> None:
    result = tasks.add.enqueue(1)
    assert fetch_result(result.id) == result
    assert enqueued == [result]
    assert len(wake_ups) == 1


@on_both
def test_in_a_transaction_the_task_is_part_of_it(
    enqueued: list[TaskResult[Any]], wake_ups: list[int], requires: Callable[..., None]
) -> None:
    with transaction.atomic():
        result = tasks.add.enqueue(1)
        assert fetch_result(result.id) == result, "the caller sees it"
        assert seen_by_others() == 0
        assert (enqueued, wake_ups) == ([], [])
    assert seen_by_others() == 1
    assert (enqueued, len(wake_ups)) == ([result], 1)


@on_both
def test_a_rollback_takes_the_task_with_it(
    enqueued: list[TaskResult[Any]], wake_ups: list[int]
) -> None:
    with pytest.raises(Oops), transaction.atomic():
        tasks.add.enqueue(1)
        raise Oops
    assert (count(), enqueued, wake_ups) == (0, [], [])


@on_both
def test_a_rollback_to_a_savepoint_takes_its_tasks_alone(
    enqueued: list[TaskResult[Any]],
) -> None:
    with transaction.atomic():
        kept = tasks.add.enqueue(1)
        with pytest.raises(Oops), transaction.atomic():
            tasks.add.enqueue(2)
            raise Oops
    assert count() == 1
    assert enqueued == [kept]


@on_both
def test_the_own_transaction_comes_before_others(inserts: list[int]) -> None:
    with transaction.atomic(), transaction.atomic("other"):
        tasks.add.enqueue(1)
        assert inserts == [1]


@pytest.mark.django_db
def test_in_a_test_case_a_task_is_visible_at_once() -> None:
    assert fetch_result(tasks.add.enqueue(1).id).args == [1]


# -- another database --------------------------------------------------------------


@on_both
@elsewhere
def test_the_insert_waits_for_the_commit_on_the_other_database(
    enqueued: list[TaskResult[Any]],
) -> None:
    with transaction.atomic():
        result = tasks.add.enqueue(1)
        assert result.enqueued_at is None
        assert count("other") == 0
    assert fetch_result(result.id) == result
    assert result.enqueued_at is not None
    assert enqueued == [result]


@on_both
@elsewhere
def test_a_rollback_on_the_other_database_drops_the_task() -> None:
    with pytest.raises(Oops), transaction.atomic():
        tasks.add.enqueue(1)
        raise Oops
    with transaction.atomic():
        pass
    assert count("other") == 0


@on_both
@elsewhere
def test_what_waits_is_inserted_together(inserts: list[int]) -> None:
    with transaction.atomic():
        for number in range(10):
            tasks.add.enqueue(number)
    assert inserts == [10]


@on_both
@elsewhere
def test_the_queue_s_own_transaction_needs_no_waiting(inserts: list[int]) -> None:
    with transaction.atomic(), transaction.atomic("other"):
        tasks.add.enqueue(1)
        assert inserts == [1]


# -- on_commit ---------------------------------------------------------------------


@on_both
def test_on_commit_puts_the_insert_off(enqueued: list[TaskResult[Any]]) -> None:
    with transaction.atomic():
        result = tasks.add.using(on_commit=True).enqueue(1)
        assert count() == 0
        assert enqueued == []
    assert fetch_result(result.id) == result
    assert enqueued == [result]


@on_both
def test_the_setting_puts_every_insert_off_into_one(inserts: list[int]) -> None:
    with override_settings(DJANGO_JOBS=ALWAYS), transaction.atomic():
        tasks.add.enqueue(1)
        enqueue_many([tasks.add.s(2), tasks.double.s(3)])
        assert inserts == []
    assert inserts == [3]
    assert count() == 3


@on_both
def test_a_call_may_refuse_to_be_put_off(inserts: list[int]) -> None:
    with override_settings(DJANGO_JOBS=ALWAYS), transaction.atomic():
        tasks.add.using(on_commit=False).enqueue(1)
        assert inserts == [1]


@on_both
@elsewhere
def test_a_call_may_refuse_to_wait_for_another_database() -> None:
    with pytest.raises(Oops), transaction.atomic():
        tasks.add.using(on_commit=False).enqueue(1)
        raise Oops
    assert count("other") == 1


@on_both
def test_on_commit_outside_a_transaction_inserts_at_once() -> None:
    result = tasks.add.using(on_commit=True).enqueue(1)
    assert fetch_result(result.id) == result


@on_both
def test_an_alias_names_the_transaction_to_wait_for(inserts: list[int]) -> None:
    call = tasks.add.using(on_commit="other")
    with transaction.atomic("other"):
        call.enqueue(1)
        assert inserts == []
    assert inserts == [1]
    call.enqueue(2)
    assert inserts == [1, 1]


@on_both
def test_of_several_transactions_all_are_waited_for(inserts: list[int]) -> None:
    with transaction.atomic():
        with transaction.atomic("other"):
            tasks.add.using(on_commit=True).enqueue(1)
        assert inserts == []
    assert inserts == [1]


@on_both
@pytest.mark.parametrize(("outer", "inner"), [BOTH, BOTH[::-1]])
def test_one_rollback_among_several_is_enough(outer: str, inner: str) -> None:
    with transaction.atomic(outer), pytest.raises(Oops), transaction.atomic(inner):
        tasks.add.using(on_commit=True).enqueue(1)
        raise Oops
    assert (count(), count("other")) == (0, 0)


@on_both
def test_tasks_of_a_savepoint_that_is_rolled_back_are_not_inserted(
    inserts: list[int],
) -> None:
    call = tasks.add.using(on_commit=True)
    with transaction.atomic():
        call.enqueue(1)
        with pytest.raises(Oops), transaction.atomic():
            call.enqueue(2)
            with transaction.atomic():
                call.enqueue(3)
            raise Oops
        with transaction.atomic():
            call.enqueue(4)
    assert inserts == [2]
    assert {
        fetch_result(str(pk)).args[0] for (pk,) in Task.objects.values_list("id")
    } == {
        1,
        4,
    }


@on_both
def test_a_first_savepoint_that_is_rolled_back_takes_nothing_else_with_it(
    inserts: list[int],
) -> None:
    call = tasks.add.using(on_commit=True)
    with transaction.atomic():
        with pytest.raises(Oops), transaction.atomic():
            call.enqueue(1)
            raise Oops
        call.enqueue(2)
    assert inserts == [1]


@on_both
def test_nothing_is_inserted_when_all_was_rolled_back(inserts: list[int]) -> None:
    with transaction.atomic(), pytest.raises(Oops), transaction.atomic():
        tasks.add.using(on_commit=True).enqueue(1)
        raise Oops
    assert inserts == []


@on_both
def test_one_transaction_leaves_nothing_to_the_next(inserts: list[int]) -> None:
    call = tasks.add.using(on_commit=True)
    with pytest.raises(Oops), transaction.atomic():
        call.enqueue(1)
        raise Oops
    for number in (2, 3):
        with transaction.atomic():
            call.enqueue(number)
    assert inserts == [1, 1]


@on_both
def test_callbacks_of_others_keep_their_places() -> None:
    order: list[str] = []
    call = tasks.add.using(on_commit=True)
    with transaction.atomic():
        for name in ("first", "second", "third"):
            transaction.on_commit(lambda name=name: order.append(name))
            call.enqueue(1)
    assert order == ["first", "second", "third"]
    assert count() == 3


@on_both
def test_a_robust_callback_that_raises_drops_no_task() -> None:
    def fail() -> None:
        raise Oops

    call = tasks.add.using(on_commit=True)
    with pytest.raises(Oops), transaction.atomic():
        transaction.on_commit(fail)
        call.enqueue(1)
    assert count() == 0, "as the guide says"
    with transaction.atomic():
        transaction.on_commit(fail, robust=True)
        call.enqueue(1)
    assert count() == 1


@pytest.mark.django_db
def test_test_cases_can_run_what_was_put_off(
    django_capture_on_commit_callbacks: Any, enqueued: list[TaskResult[Any]]
) -> None:
    call = tasks.add.using(on_commit=True)
    before = call.enqueue(1)
    with django_capture_on_commit_callbacks(execute=True):
        inside = call.enqueue(2)
    assert fetch_result(inside.id) == inside
    assert before.enqueued_at is None
    assert enqueued == [inside]


@on_both
def test_an_insert_that_lands_in_another_open_transaction_waits_for_that_too(
    enqueued: list[TaskResult[Any]],
) -> None:
    with transaction.atomic():
        with transaction.atomic("other"):
            result = tasks.add.using(on_commit="other").enqueue(1)
        assert result.enqueued_at is not None
        assert enqueued == []
        with pytest.raises(ResultError, match="no worker sees it before the commit"):
            result.get(timeout=30)
    assert enqueued == [result]


@pytest.mark.django_db
def test_in_a_test_case_that_plays_commits_an_enqueue_ends(
    django_capture_on_commit_callbacks: Any, enqueued: list[TaskResult[Any]]
) -> None:
    with django_capture_on_commit_callbacks(execute=True) as callbacks:
        result = tasks.add.enqueue(1)
        result.revoke()
    assert enqueued == [result]
    assert len(callbacks) < 5


# -- transactions that are managed by hand -------------------------------------------


@pytest.fixture
def by_hand(transactional_db: None) -> Iterator[None]:
    transaction.set_autocommit(False)
    yield
    if not transaction.get_autocommit():
        transaction.rollback()
        transaction.set_autocommit(True)


def test_a_commit_by_hand_is_waited_for(
    by_hand: None, enqueued: list[TaskResult[Any]], wake_ups: list[int]
) -> None:
    result = tasks.add.enqueue(1)
    assert (enqueued, wake_ups) == ([], [])
    transaction.commit()
    transaction.set_autocommit(True)
    assert (enqueued, len(wake_ups)) == ([result], 1)
    assert fetch_result(result.id) == result


def test_a_rollback_by_hand_takes_the_task_with_it(
    by_hand: None, enqueued: list[TaskResult[Any]], wake_ups: list[int]
) -> None:
    tasks.add.enqueue(1)
    transaction.rollback()
    transaction.set_autocommit(True)
    assert (count(), enqueued, wake_ups) == (0, [], [])


def test_a_block_inside_a_transaction_by_hand_waits_as_well(
    by_hand: None, enqueued: list[TaskResult[Any]]
) -> None:
    with transaction.atomic():
        result = tasks.add.enqueue(1)
    assert enqueued == []
    transaction.commit()
    transaction.set_autocommit(True)
    assert enqueued == [result]


# -- when there is nothing to insert into, or nobody to run it -------------------------


@pytest.mark.parametrize("is_open", [False, True])
@pytest.mark.django_db(transaction=True)
def test_missing_tables_are_named(
    is_open: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = Task._meta.db_table
    insert = type(get_store()).insert

    def without_tables(store: Store, new: Sequence[NewTask]) -> Any:
        renamed = lambda call, sql, *rest: call(  # noqa: E731
            sql.replace(table, "not_migrated"), *rest
        )
        with connection.execute_wrapper(renamed):
            return insert(store, new)

    monkeypatch.setattr(type(get_store()), "insert", without_tables)
    with (
        pytest.raises(
            SetupError, match=r"run manage\.py migrate --database default"
        ) as caught,
        transaction.atomic() if is_open else nullcontext(),
    ):
        tasks.add.enqueue(1)
    assert isinstance(caught.value.__cause__, DatabaseError)


@pytest.mark.parametrize(
    "module", ["__main__", None, "django.core.management.commands.shell"]
)
@pytest.mark.django_db
def test_a_task_of_a_script_or_a_shell_is_refused(
    module: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(definitions, "_definitions", {})
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)

    def typed(value: int) -> int:
        return value

    typed.__module__, typed.__qualname__ = module, "typed"  # type: ignore[assignment]
    refused = task(typed)
    assert refused.call(1) == 1
    words = "declared in a script or a shell, which no worker imports"
    with (
        CaptureQueriesContext(connection) as queries,
        pytest.raises(UnreachableTask, match=words) as caught,
    ):
        enqueue_many([tasks.add.s(1), refused.s(1)])
    assert len(queries) == 0
    assert "workers know the name" not in str(caught.value)


@pytest.mark.parametrize(
    "module", ["__main__", None, "django.core.management.commands.shell"]
)
@pytest.mark.django_db
def test_a_name_makes_no_worker_find_a_script_or_a_shell(
    module: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(definitions, "_definitions", {})

    def typed(value: int) -> int:
        return value

    typed.__module__, typed.__qualname__ = module, "typed"  # type: ignore[assignment]
    named = task(name="my.mail")(typed)
    words = "task my.mail is declared in a script .* declare it in any module"
    with (
        CaptureQueriesContext(connection) as queries,
        pytest.raises(UnreachableTask, match=words),
    ):
        named.using(priority=1).enqueue(1)
    assert len(queries) == 0
    # As the error says: declared in a module that is imported, whatever is known here.
    typed.__module__ = "shop.names_of_others"
    assert task(name="of.others")(typed).enqueue(1).name == "of.others"


def clean() -> None: ...


def test_a_module_that_is_run_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = ModuleSpec("shop.nightly", None, origin=__file__)
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", spec)
    producer.check_reachable("shop.nightly.clean", clean)
    monkeypatch.setattr(clean, "__module__", "__main__")
    words = "declared in shop.nightly, run as __main__, which no worker imports"
    with pytest.raises(UnreachableTask, match=words):
        producer.check_reachable("__main__.clean", clean)
    # A worker that imports the module knows it by this name.
    producer.check_reachable("shop.clean", clean)
    spec.origin = "another.py"
    with pytest.raises(UnreachableTask, match="a script or a shell"):
        producer.check_reachable("shop.clean", clean)


# -- when the insert fails ---------------------------------------------------------


@pytest.fixture
def broken_insert(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(store: Store, new: Sequence[NewTask]) -> None:
        raise OperationalError("the disk is full")

    monkeypatch.setattr(type(get_store()), "insert", fail)


@on_both
@pytest.mark.usefixtures("broken_insert")
def test_an_insert_that_fails_later_is_logged_with_its_ids_and_raised(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(OperationalError, match="disk is full"), transaction.atomic():
        results = enqueue_many([tasks.add.using(on_commit=True).s(n) for n in (1, 2)])
    (record,) = [each for each in caplog.records if each.name == "django_jobs"]
    assert all(result.id in record.getMessage() for result in results)


@on_both
@pytest.mark.usefixtures("broken_insert")
def test_an_insert_that_fails_at_once_is_the_caller_s() -> None:
    with pytest.raises(OperationalError, match="disk is full"):
        tasks.add.enqueue(1)


def lose_connection(
    monkeypatch: pytest.MonkeyPatch, *, after_insert: bool
) -> list[int]:
    """Make the first insert fail on a dead connection, before or after its COMMIT."""
    calls: list[int] = []
    dialect = type(get_store())
    insert = dialect.insert

    def flaky(store: Store, new: Sequence[NewTask], again: bool = False) -> Any:
        calls.append(len(new))
        if again:
            return insert(store, new, again=True)  # type: ignore[arg-type]
        if after_insert:
            insert(store, new)  # type: ignore[arg-type]
        connection.ensure_connection()
        monkeypatch.setattr(connection, "is_usable", lambda: False)
        raise InterfaceError("connection already closed")

    monkeypatch.setattr(dialect, "insert", flaky)
    return calls


@on_both
@pytest.mark.parametrize("after_insert", [False, True])
def test_an_enqueue_on_a_dead_connection_is_repeated_and_does_not_double(
    monkeypatch: pytest.MonkeyPatch, after_insert: bool
) -> None:
    calls = lose_connection(monkeypatch, after_insert=after_insert)
    result = tasks.add.enqueue(1)
    assert calls == [1, 1]
    assert count() == 1
    assert fetch_result(result.id).args == [1]


@on_both
def test_in_a_transaction_nothing_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = lose_connection(monkeypatch, after_insert=False)
    with pytest.raises(InterfaceError), transaction.atomic():
        tasks.add.enqueue(1)
    assert calls == [1]


@on_both
def test_a_repeated_enqueue_under_the_same_id_does_not_double() -> None:
    new = tasks.add.new_task((1,), {})
    for _ in range(2):
        producer.enqueue([new], [tasks.add])
    assert count() == 1


# -- wake-up -----------------------------------------------------------------------


@on_both
def test_wake_ups_in_quick_succession_are_one(wake_ups: list[int]) -> None:
    with override_settings(DJANGO_JOBS={}), transaction.atomic():
        for number in range(50):
            tasks.add.enqueue(number)
    assert len(wake_ups) == 1


@on_both
def test_a_later_enqueue_wakes_again(
    wake_ups: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks.add.enqueue(1)
    monkeypatch.setattr(producer, "_WAKE_UP_EVERY", 0.0)
    tasks.add.using(run_after=60).enqueue(2)
    assert len(wake_ups) == 2, "workers have to know of scheduled tasks too"


@on_both
def test_wake_ups_can_be_switched_off(wake_ups: list[int]) -> None:
    with override_settings(DJANGO_JOBS={"NOTIFY": False}):
        tasks.add.enqueue(1)
    assert wake_ups == []


@on_both
def test_a_wake_up_that_fails_is_no_failure_of_the_enqueue(
    monkeypatch: pytest.MonkeyPatch,
    wake_ups: list[int],
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(store: Store) -> None:
        raise OperationalError("queue full")

    monkeypatch.setattr(type(get_store()), "notify", fail)
    result = tasks.add.enqueue(1)
    assert fetch_result(result.id) == result
    assert "event=wake_up_failed" in caplog.text


# -- middleware --------------------------------------------------------------------


def raise_priority(get_response: Callable[[NewTask], NewTask]) -> Any:
    return lambda task: get_response(task._replace(priority=99))


def forget(get_response: Callable[[NewTask], NewTask]) -> Any:
    return lambda task: None


@pytest.mark.django_db
@override_settings(DJANGO_JOBS={"ENQUEUE_MIDDLEWARE": [f"{__name__}.raise_priority"]})
def test_every_task_goes_through_the_middleware() -> None:
    results = enqueue_many([tasks.add.s(1), tasks.add.s(2)])
    assert [result.priority for result in results] == [99, 99]
    assert fetch_result(results[0].id).priority == 99


@pytest.mark.django_db
@override_settings(DJANGO_JOBS={"ENQUEUE_MIDDLEWARE": [f"{__name__}.forget"]})
def test_a_middleware_that_returns_no_task_is_named() -> None:
    with (
        CaptureQueriesContext(connection) as queries,
        pytest.raises(ImproperlyConfigured, match="returned None instead of the task"),
    ):
        tasks.add.enqueue(1)
    assert len(queries) == 0
