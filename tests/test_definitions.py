"""Enqueueing a task by its definition: the options, the refusals, the direct calls."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import User
from django.db import connection, connections, transaction
from django.test import override_settings
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_jobs import (
    InvalidArguments,
    InvalidOption,
    PayloadTooLarge,
    State,
    TaskNotFound,
    TaskResult,
    UnknownQueue,
    UnknownTask,
    aenqueue_many,
    enqueue_many,
    fetch_result,
)
from django_jobs.definitions import TaskDefinition, all_definitions, get_definition
from django_jobs.exceptions import EnqueueError
from django_jobs.models import Task
from django_jobs.options import read_task_options
from tests.sampleapp import tasks

NOON = datetime(2040, 1, 1, 12, tzinfo=UTC)


def row(result: TaskResult[Any]) -> Task:
    return Task.objects.get(pk=result.id)


def seconds_ahead(result: TaskResult[Any], moment: datetime | None) -> float:
    assert moment is not None
    assert result.enqueued_at is not None
    return (moment - result.enqueued_at).total_seconds()


# -- enqueue -----------------------------------------------------------------------


@pytest.mark.django_db
def test_an_enqueued_task_is_a_row_with_everything_in_it() -> None:
    result = tasks.add.enqueue(40, b=2)
    task = row(result)
    assert (task.name, task.queue_name, task.state) == (
        tasks.add.name,
        "default",
        "READY",
    )
    assert (task.args, task.kwargs, task.summary) == ("[40]", '{"b":2}', "40, b=2")
    assert (task.max_attempts, task.attempt, task.priority) == (3, 0, 0)
    assert UUID(result.id).version == 7


@pytest.mark.django_db
def test_the_result_equals_what_is_fetched_later() -> None:
    later = tasks.send.using(run_after=60.123456789)  # databases round differently
    for result in (tasks.add.enqueue(1), later.enqueue("x")):
        assert fetch_result(result.id) == result


@pytest.mark.django_db(transaction=True)
def test_enqueue_works_from_async_code() -> None:
    result = async_to_sync(tasks.add.aenqueue)(1, b=3)
    assert (result.args, result.kwargs) == ([1], {"b": 3})
    assert row(result).args == "[1]"


@pytest.mark.django_db
def test_options_of_the_task_go_into_the_row() -> None:
    result = tasks.send.enqueue("a@example.org")
    task = row(result)
    assert (task.name, task.queue_name, task.priority) == ("sample.send", "mail", 10)
    assert task.max_attempts == 5
    assert seconds_ahead(result, task.expires) == pytest.approx(3600, abs=0.01)
    assert task.time_limit is None, "the worker takes it from the definition"


@pytest.mark.django_db
def test_sensitive_arguments_are_masked_in_the_summary_alone() -> None:
    by_place = tasks.send.enqueue("a@example.org", "hunter2")
    by_name = tasks.send.enqueue("a@example.org", password="hunter2")
    assert row(by_place).summary == "'a@example.org', ***"
    assert row(by_name).summary == "'a@example.org', password=***"
    assert by_place.args == ["a@example.org", "hunter2"]
    assert row(tasks.keep_quiet.enqueue("a", b="c")).summary == "***, b=***"


ROUND_TRIPS = [
    "NUL \x00",
    "lone \ud800 and \udfff",
    "pair \ud83d\ude00",
    "naïve Ωmega \U0001f600 \u2028",
    2**64,
    -(10**4000),
    1e16,
    5e-324,
    1.7976931348623157e308,
    "\\' \" %s %% \n\t\r\x1a",
    {"NUL \x00": {"$date": ["\ud800"]}},
    NOON,
    timedelta(microseconds=1),
]


@pytest.mark.django_db
@pytest.mark.parametrize("value", ROUND_TRIPS, ids=lambda value: repr(value)[:30])
def test_arguments_come_back_from_the_database_as_they_were(value: Any) -> None:
    result = tasks.echo.enqueue(value, keyword=value)
    again = fetch_result(result.id)
    assert again.args == [value]
    assert again.kwargs == {"keyword": value}


@pytest.mark.django_db
def test_a_payload_just_within_the_limit_is_taken() -> None:
    with override_settings(DJANGO_JOBS={"PAYLOAD_MAX_BYTES": 100_000}):
        result = tasks.echo.enqueue("x" * (100_000 - len('[""]') - len("{}")))
    assert len(row(result).args) == 100_000 - len("{}")


# -- using -------------------------------------------------------------------------


@pytest.mark.django_db
def test_using_overrides_what_the_task_declares() -> None:
    result = tasks.send.using(
        priority=-5,
        queue_name="slow",
        max_attempts=1,
        time_limit=timedelta(minutes=5),
        metadata={"tenant": 7},
    ).enqueue("x")
    task = row(result)
    assert (task.priority, task.queue_name, task.max_attempts) == (-5, "slow", 1)
    assert (task.time_limit, result.metadata) == (300.0, {"tenant": 7})


def test_using_leaves_the_task_itself_alone() -> None:
    copy = tasks.add.using(priority=5).using(queue_name="slow")
    assert (copy.priority, copy.queue_name) == (5, "slow")
    assert (tasks.add.priority, tasks.add.queue_name) == (0, "default")
    assert copy.origin is tasks.add


def test_using_none_leaves_an_option_as_it_is() -> None:
    assert tasks.send.using(priority=None, queue_name=None).priority == 10


@pytest.mark.django_db
@pytest.mark.parametrize("delay", [90, 90.0, timedelta(seconds=90)])
def test_run_after_may_be_a_delay(delay: Any) -> None:
    result = tasks.add.using(run_after=delay).enqueue(1)
    assert result.status == row(result).state == State.SCHEDULED
    assert seconds_ahead(result, row(result).run_after) == pytest.approx(90, abs=0.01)


@pytest.mark.django_db
def test_run_after_may_be_a_moment() -> None:
    moment = NOON.astimezone(timezone.get_fixed_timezone(120))
    result = tasks.add.using(run_after=moment).enqueue(1)
    assert result.status == row(result).state == State.SCHEDULED
    assert row(result).run_after == result.run_after == NOON


@pytest.mark.django_db
def test_a_moment_that_is_over_means_at_once() -> None:
    result = tasks.add.using(run_after=NOON.replace(year=2000)).enqueue(1)
    assert result.status == row(result).state == State.READY


@pytest.mark.django_db
@override_settings(USE_TZ=False)
def test_without_time_zones_a_naive_moment_is_local_time() -> None:
    with override_settings(TIME_ZONE="Asia/Tokyo"):
        copy = tasks.add.using(run_after=datetime(2040, 1, 1, 21))
    assert copy.chosen.run_after == NOON


@pytest.mark.django_db
def test_expiry_counts_from_the_time_due() -> None:
    late = row(result := tasks.send.using(run_after=1000).enqueue("x"))
    assert seconds_ahead(result, late.expires) == pytest.approx(4600, abs=0.01)
    late = row(result := tasks.send.using(run_after=1000, expires=10).enqueue("x"))
    assert seconds_ahead(result, late.expires) == pytest.approx(1010, abs=0.01)
    exact = row(tasks.add.using(run_after=NOON, expires=60).enqueue(1))
    assert exact.expires == NOON + timedelta(seconds=60)
    assert row(tasks.send.using(expires=NOON).enqueue("x")).expires == NOON


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("run_after", "tomorrow", "a datetime, or a timedelta or seconds"),
        ("run_after", -1, "not negative"),
        ("run_after", timedelta(days=-1), "not negative"),
        ("run_after", datetime(2040, 1, 1), "an aware datetime"),
        (
            "run_after",
            datetime(1, 1, 1, tzinfo=timezone.get_fixed_timezone(840)),
            "1970",
        ),
        ("run_after", NOON.replace(year=9999), "a datetime from 1970 to 9900"),
        ("run_after", timedelta(days=20_000), "a datetime, or a timedelta"),
        ("run_after", float("nan"), "a datetime, or a timedelta"),
        ("expires", datetime(2040, 1, 1), "an aware datetime"),
        ("expires", "never", "a datetime"),
        ("priority", 200, "a whole number from -100 to 100"),
        ("priority", 0.5, "a whole number"),
        ("queue_name", "", "a string of 1 to 100"),
        ("max_attempts", 0, "a whole number from 1"),
        ("time_limit", 0, "more than 0"),
        ("metadata", ["a"], "a dict"),
        ("on_commit", "no such database", "alias of a database"),
        ("on_commit", 1, "True, False or the alias"),
    ],
)
def test_a_wrong_option_is_answered_with_what_to_write(
    option: str, value: Any, words: str
) -> None:
    with pytest.raises(InvalidOption) as caught:
        tasks.add.using(**{option: value})
    assert f"task {tasks.add.name}: {option} must be " in str(caught.value)
    assert words in str(caught.value)


def test_an_option_that_there_is_not_is_refused() -> None:
    with pytest.raises(TypeError, match="run_at"):
        tasks.add.using(run_at=NOON)  # type: ignore[call-arg]


def test_metadata_is_checked_like_arguments() -> None:
    with pytest.raises(InvalidArguments, match=r"metadata\['a'\]\[0\]: set is no JSON"):
        tasks.add.using(metadata={"a": [set()]})
    with pytest.raises(PayloadTooLarge, match="metadata has"):
        tasks.add.using(metadata={"a": "x" * 300_000})


def test_expiry_before_the_time_due_is_refused() -> None:
    with pytest.raises(InvalidOption, match="before it may run"):
        tasks.add.using(run_after=NOON, expires=NOON)


def test_a_limit_shorter_than_the_soft_one_is_refused() -> None:
    with pytest.raises(InvalidOption, match="must not be shorter than the task's soft"):
        tasks.send.using(time_limit=49)


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("countdown", "; write using(run_after=60), in seconds"),
        ("eta", "; write using(run_after=60), in seconds, or a timedelta or datetime"),
        ("delay", "; write using(run_after=60)"),
        ("queue", '; write using(queue_name="mail")'),
        ("retries", "; write using(max_attempts=4), the first attempt included"),
        ("timeout", "; write using(time_limit=60), in seconds"),
        ("expires_in", "; write using(expires=3600)"),
        ("ignore_result", "; write @task(store_result=False)"),
        ("atomic", "; write @task(atomic=True)"),
        ("priorty", ". Did you mean 'priority'?"),
        ("serializer", ". The options are run_after, priority, "),
        ("schedule", "; write using(run_after=60), in seconds"),
        ("rate_limit", ": there are no rate limits yet."),
        ("link", ": there are no workflows yet, enqueue the next task at the end"),
    ],
)
@pytest.mark.parametrize("value", [60, None])
def test_an_unknown_option_of_using_is_answered_with_ours(
    option: str, words: str, value: Any
) -> None:
    for call in (tasks.add.using, tasks.add.s(1).using):
        with pytest.raises(TypeError) as caught:
            call(**{option: value})
        assert f"using() has no option {option!r}{words}" in str(caught.value)


# -- refusals ----------------------------------------------------------------------


class Unprintable:
    pass


def deep() -> list[Any]:
    value: list[Any] = []
    for _ in range(100):
        value = [value]
    return value


REFUSALS: list[tuple[Callable[[], Any], type[EnqueueError], str]] = [
    (lambda: tasks.add.enqueue(), InvalidArguments, "missing a required argument: 'a'"),
    (lambda: tasks.add.enqueue(1, 2, 3), InvalidArguments, "too many positional"),
    (lambda: tasks.add.enqueue(1, c=2), InvalidArguments, "keyword argument 'c'"),
    (lambda: tasks.greet.enqueue("x"), InvalidArguments, "argument: 'punctuation'"),
    (lambda: tasks.describe.enqueue(1, 2), InvalidArguments, "too many positional"),
    (
        lambda: tasks.echo.enqueue([{"x": {1}}]),
        InvalidArguments,
        "args[0][0]['x']: set",
    ),
    (lambda: tasks.echo.enqueue(k=[object()]), InvalidArguments, "kwargs['k'][0]: "),
    (lambda: tasks.echo.enqueue(User(pk=1)), InvalidArguments, "args[0]: User is no"),
    (lambda: tasks.echo.enqueue(User(pk=1)), InvalidArguments, "pass its pk"),
    (lambda: tasks.echo.enqueue({1: 2}), InvalidArguments, "args[0]: the key 1 is not"),
    (lambda: tasks.echo.enqueue(float("nan")), InvalidArguments, "args[0]: nan"),
    (
        lambda: tasks.echo.enqueue(x=-float("inf")),
        InvalidArguments,
        "kwargs['x']: -inf",
    ),
    (lambda: tasks.echo.enqueue(10**5000), InvalidArguments, "args[0]: an int of more"),
    (lambda: tasks.echo.enqueue(deep()), InvalidArguments, "PAYLOAD_MAX_DEPTH"),
    (
        lambda: tasks.echo.enqueue("x" * 300_000),
        PayloadTooLarge,
        "args[0] alone has 300",
    ),
    (lambda: tasks.echo.enqueue(k="x" * 300_000), PayloadTooLarge, "kwargs['k'] alone"),
    (lambda: tasks.add.using(priority=999), InvalidOption, "priority must be"),
    (lambda: tasks.add.using(run_after=datetime.now()), InvalidOption, "aware"),
    (
        lambda: tasks.add.using(queue_name="defualt").enqueue(1),
        UnknownQueue,
        "'defualt' is not among DJANGO_JOBS['QUEUES']. Did you mean 'default'?",
    ),
]


@pytest.mark.django_db
@override_settings(DJANGO_JOBS={"PAYLOAD_MAX_DEPTH": 2})
def test_an_argument_may_be_as_deep_as_the_settings_say() -> None:
    assert tasks.echo.enqueue([[1]], k=[[1]]).args == [[[1]]]
    for refused in ({"args": [[[[1]]]]}, {"kwargs": {"k": [[[1]]]}}):
        with pytest.raises(InvalidArguments, match="more lists and dicts one inside"):
            tasks.echo.enqueue(*refused.get("args", ()), **refused.get("kwargs", {}))


@pytest.mark.django_db
@pytest.mark.parametrize(("attempt", "error", "words"), REFUSALS)
def test_what_cannot_run_is_refused_before_any_sql(
    attempt: Callable[[], Any], error: type[EnqueueError], words: str
) -> None:
    with (
        override_settings(DJANGO_JOBS={"QUEUES": ["default", "mail"]}),
        transaction.atomic(),
    ):
        with (
            CaptureQueriesContext(connection) as queries,
            pytest.raises(error) as caught,
        ):
            attempt()
        assert words in str(caught.value)
        assert len(queries) == 0
        assert Task.objects.count() == 0, "the transaction is usable"


def test_a_refusal_names_the_task() -> None:
    with pytest.raises(InvalidArguments, match=r"^task tests.sampleapp.tasks.add"):
        tasks.add.enqueue(object())  # type: ignore[arg-type]


@pytest.mark.django_db
def test_any_queue_is_known_when_none_is_declared() -> None:
    assert tasks.add.using(queue_name="any").enqueue(1).queue_name == "any"


@pytest.mark.django_db
def test_arguments_may_be_as_deep_as_the_limit() -> None:
    with override_settings(DJANGO_JOBS={"PAYLOAD_MAX_DEPTH": 2}):
        tasks.echo.enqueue([[]])
        with pytest.raises(InvalidArguments, match="too deeply"):
            tasks.echo.enqueue([[[]]])


# -- many --------------------------------------------------------------------------


@pytest.mark.django_db
def test_many_tasks_of_any_kind_go_in_with_one_insert() -> None:
    calls = [
        tasks.add.s(1),
        tasks.double.s(2),
        tasks.send.using(priority=50, run_after=60).s("x"),
        tasks.add.s(3, b=4).using(queue_name="slow"),
    ]
    with CaptureQueriesContext(connection) as queries:
        results = enqueue_many(calls)
    inserts = [each for each in queries if "INSERT INTO" in each["sql"]]
    assert len(inserts) == 1
    assert [result.name for result in results] == [
        call.definition.name for call in calls
    ]
    assert [fetch_result(result.id) for result in results] == results
    assert results[2].status == State.SCHEDULED
    assert results[3].queue_name == "slow"


@pytest.mark.django_db
def test_ids_of_many_are_known_and_in_order() -> None:
    results = enqueue_many(tasks.add.s(number) for number in range(500))
    assert [result.args for result in results] == [[number] for number in range(500)]
    ids = [result.id for result in results]
    assert ids == sorted(set(ids))
    assert Task.objects.count() == 500


@pytest.mark.django_db
def test_none_of_many_is_enqueued_when_one_is_refused() -> None:
    with pytest.raises(InvalidArguments):
        enqueue_many([tasks.add.s(1), tasks.echo.s(object())])
    assert Task.objects.count() == 0


def test_many_of_none_is_nothing() -> None:
    assert enqueue_many([]) == []


def test_many_takes_calls_only() -> None:
    with pytest.raises(TypeError, match=r"written as task\.s\(\.\.\.\)"):
        enqueue_many([tasks.add])  # type: ignore[list-item]


@pytest.mark.django_db(transaction=True)
def test_many_work_from_async_code() -> None:
    results = async_to_sync(aenqueue_many)([tasks.add.s(1), tasks.add.s(2)])
    assert [result.args for result in results] == [[1], [2]]


@pytest.mark.django_db
def test_a_call_enqueues_itself() -> None:
    call = tasks.add.s(1, b=2)
    assert call.enqueue().args == [1]
    assert call.using(priority=3).enqueue().priority == 3
    assert (call.definition, call.args, call.kwargs) == (tasks.add, (1,), {"b": 2})


@pytest.mark.parametrize("calls", [tasks.add.s(1), tasks.add])
def test_one_call_alone_is_no_list_of_calls(calls: Any) -> None:
    for function in (enqueue_many, async_to_sync(aenqueue_many)):
        with pytest.raises(TypeError, match=r"write enqueue_many\(\[task\.s\(1\), "):
            function(calls)


def test_calls_of_others_are_answered_with_ours() -> None:
    call: Any = tasks.add.s(1)
    assert not hasattr(call, "delay")
    with pytest.raises(
        AttributeError, match=r"; write task\.s\(\.\.\.\)\.enqueue\(\)$"
    ):
        call.delay()
    with pytest.raises(AttributeError, match=r"'Signature' .* attribute 'nothing'$"):
        call.nothing  # noqa: B018
    with pytest.raises(TypeError, match=r"joined by \|: there are no workflows yet"):
        call | call


# -- direct calls ------------------------------------------------------------------


def test_call_runs_the_function_here() -> None:
    assert tasks.add.call(1, b=3) == 4
    assert tasks.double.call(4) == 8


def test_acall_awaits_the_function_here() -> None:
    assert async_to_sync(tasks.add.acall)(1) == 3
    assert async_to_sync(tasks.double.acall)(4) == 8


def fail_after_writing() -> None:
    User.objects.create(username="half")
    raise ValueError("half way")


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("is_atomic", [False, True])
def test_a_direct_call_of_an_atomic_task_rolls_back(
    is_async: bool, is_atomic: bool
) -> None:
    options = read_task_options({"atomic": is_atomic})
    definition: Any = TaskDefinition(fail_after_writing, options)
    call = async_to_sync(definition.acall) if is_async else definition.call
    with pytest.raises(ValueError, match="half way"):
        call()
    assert User.objects.exists() is not is_atomic


@pytest.mark.django_db(transaction=True, databases=["default", "other"])
@override_settings(DJANGO_JOBS={"DATABASE": "other"})
def test_the_transaction_of_a_direct_call_is_on_the_queues_database() -> None:
    def look() -> list[bool]:
        return [connections[alias].in_atomic_block for alias in ("default", "other")]

    options = read_task_options({"atomic": True})
    assert TaskDefinition(look, options).call() == [False, True]


@pytest.mark.django_db(transaction=True)
def test_a_direct_call_may_be_part_of_a_transaction() -> None:
    options = read_task_options({"atomic": True})
    definition: Any = TaskDefinition(fail_after_writing, options)
    with transaction.atomic():
        User.objects.create(username="before")
        with pytest.raises(ValueError, match="half way"):
            definition.call()
    assert [each.username for each in User.objects.all()] == ["before"]


def test_a_direct_call_gets_a_context_of_its_own() -> None:
    attempt, key, value = tasks.describe.call("x")
    assert (attempt, UUID(key).version, value) == (1, 7, "x")
    assert async_to_sync(tasks.adescribe.acall)("x") == [1, "x"]


def test_calling_the_task_itself_says_what_to_write() -> None:
    with pytest.raises(TypeError, match=r"add\.enqueue\(\.\.\.\).*add\.call\(\.\.\.\)"):
        tasks.add(1)


# -- results by definition ---------------------------------------------------------


@pytest.mark.django_db
def test_a_definition_finds_results_of_its_tasks() -> None:
    result = tasks.add.enqueue(1)
    assert tasks.add.get_result(result.id) == result
    assert tasks.add.get_result(UUID(result.id)) == result


@pytest.mark.django_db(transaction=True)
def test_a_definition_finds_results_from_async_code() -> None:
    result = tasks.add.enqueue(1)
    assert async_to_sync(tasks.add.aget_result)(result.id) == result


@pytest.mark.django_db
def test_results_of_other_tasks_are_not_found() -> None:
    result = tasks.add.enqueue(1)
    with pytest.raises(TaskNotFound, match=r"one of tests\.sampleapp\.tasks\.add, not"):
        tasks.double.get_result(result.id)
    with pytest.raises(TaskNotFound):
        tasks.add.get_result("no id at all")


# -- the registry ------------------------------------------------------------------


def test_an_unknown_name_is_answered_with_the_right_one() -> None:
    with pytest.raises(UnknownTask, match=r"Did you mean 'sample\.send'"):
        get_definition("sample.sent")


def test_all_definitions_are_listed_by_name() -> None:
    names = [definition.name for definition in all_definitions()]
    assert names == sorted(names)
    assert "sample.send" in names


def test_definitions_are_pickled_by_name() -> None:
    assert pickle.loads(pickle.dumps(tasks.add)).func is tasks.add.func  # noqa: S301
    call = pickle.loads(pickle.dumps(tasks.add.using(priority=7).s(1)))  # noqa: S301
    assert (call.definition.priority, call.args) == (7, (1,))
