"""Declaring a task: what works, and what is refused at import with a way out."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import fields
from datetime import timedelta
from typing import Any

import pytest
from django.test import override_settings

from django_jobs import InvalidTask, RetryPolicy, TaskContext, TaskDefinition, task
from django_jobs.definitions import find_definition
from django_jobs.options import TaskOptions
from tests.sampleapp import tasks


def function(value: int) -> int:
    return value


async def coroutine(value: int) -> int:
    return value


def generator() -> Iterator[int]:
    yield 1


async def async_generator() -> AsyncIterator[int]:
    yield 1


def wants_context(context: TaskContext, value: int) -> int:
    return value


def wants_job(job: TaskContext, value: int) -> int:
    return value


def wants_keyword(*, context: TaskContext) -> None: ...


class Holder:
    def method(self, value: int) -> None: ...

    def odd(this, value: int) -> None: ...

    @staticmethod
    def static(value: int) -> None: ...

    @classmethod
    def of_class(cls, value: int) -> None: ...

    def __call__(self, value: int) -> None: ...

    class Inner:
        def method(me) -> None: ...


def declared(function: Callable[..., Any], **options: Any) -> TaskDefinition[..., Any]:
    definition: TaskDefinition[..., Any] = task(**options)(function)
    return definition


def refusal(function: Any, **options: Any) -> str:
    with pytest.raises(InvalidTask) as caught:
        task(**options)(function)
    return str(caught.value)


# -- what works --------------------------------------------------------------------


def test_without_options_the_settings_hold() -> None:
    definition = task(function)
    assert definition.name == definition.module_path == f"{__name__}.function"
    assert definition.func is function
    assert definition.queue_name == "default"
    assert (definition.priority, definition.max_attempts) == (0, 3)
    assert (definition.time_limit, definition.soft_time_limit) == (None, None)
    assert definition.result_retention == 7 * 86_400
    assert (definition.expires, definition.backoff) == (None, None)
    assert (definition.retry_on, definition.give_up_on) == ((), ())
    assert (definition.atomic, definition.store_result) == (False, True)
    assert (definition.takes_context, definition.sensitive) == (False, False)
    assert (definition.policy.base, definition.policy.cap) == (5.0, 3600.0)


def test_empty_brackets_are_the_same() -> None:
    assert task()(function).name == f"{__name__}.function"


def test_settings_hold_live() -> None:
    definition = task(function)
    changed = {
        "DEFAULT_QUEUE": "other",
        "MAX_ATTEMPTS": 7,
        "TIME_LIMIT": 30,
        "SOFT_TIME_LIMIT": 20,
        "RESULT_RETENTION": None,
        "BACKOFF_BASE": 2,
    }
    with override_settings(DJANGO_JOBS=changed):
        assert definition.queue_name == "other"
        assert definition.max_attempts == 7
        assert (definition.time_limit, definition.soft_time_limit) == (30, 20)
        assert definition.result_retention is None
        assert definition.policy.base == 2


def test_waits_that_make_no_policy_cost_no_retries(
    caplog: pytest.LogCaptureFixture,
) -> None:
    definition = task(function, retry_on=OSError)
    definition.backoff = (-1,)
    assert definition.policy == RetryPolicy(retry_on=(OSError,))
    assert "policy_failed" in caplog.text


def test_every_option_is_kept() -> None:
    send = tasks.send
    assert send.name == "sample.send"
    assert send.module_path == "tests.sampleapp.tasks.send"
    assert (send.queue_name, send.priority, send.max_attempts) == ("mail", 10, 5)
    assert send.policy.delay(3, OSError()) == 3.0
    assert send.policy.retry_on == send.retry_on == (OSError,)
    assert send.policy.give_up_on == send.give_up_on == (FileNotFoundError,)
    assert (send.time_limit, send.soft_time_limit) == (60.0, 50.0)
    assert (send.expires, send.result_retention) == (3600.0, 86_400.0)
    assert send.atomic is True
    assert send.store_result is False
    assert send.sensitive == ("password",)


def test_results_can_be_kept_for_ever() -> None:
    assert declared(function, result_retention=None).result_retention is None


def test_async_functions_are_known_as_such() -> None:
    assert task(coroutine).is_async is True
    assert task(function).is_async is False


def test_a_backoff_may_be_a_function_a_list_or_a_policy() -> None:
    error = ValueError()
    by_function = declared(function, backoff=lambda attempt, error: attempt * 10)
    assert by_function.policy.delay(2, error) == 20
    assert declared(function, backoff=[7]).policy.delay(1, error) == 7
    policy = RetryPolicy(base=100.0, cap=100.0)
    assert 50 <= declared(function, backoff=policy).policy.delay(1, error) <= 100


def test_a_task_is_found_by_its_name() -> None:
    definition = task(function)
    assert find_definition(definition.name) is definition


def test_the_tasks_of_installed_apps_are_found_by_themselves() -> None:
    assert find_definition("tests.sampleapp.tasks.add") is tasks.add


def test_a_module_that_is_imported_again_may_declare_again() -> None:
    first, second = task(function), task(function)
    assert find_definition(first.name) is second


def test_a_wrapped_function_is_declared_under_its_own_name() -> None:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    definition = task(wrapper)
    assert definition.name == f"{__name__}.function"
    assert str(definition.parameters.signature) == "(value: 'int') -> 'int'"


def test_the_context_is_no_parameter_of_the_task() -> None:
    definition = declared(wants_context, takes_context=True)
    assert definition.parameters.names == ("value",)


# -- what is refused ---------------------------------------------------------------


def test_an_unknown_option_is_answered_with_the_right_one() -> None:
    words = refusal(function, max_attempt=3)
    assert words.startswith(f"@task {__name__}.function: ")
    assert "there is no option 'max_attempt'. Did you mean 'max_attempts'?" in words


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("retries", "; write @task(max_attempts=4), the first attempt included"),
        ("max_retries", "; write @task(max_attempts=4)"),
        ("queue", '; write @task(queue_name="mail")'),
        ("bind", "; write @task(takes_context=True)"),
        ("timeout", "; write @task(time_limit=60), in seconds"),
        ("ignore_result", "; write @task(store_result=False)"),
        ("autoretry_for", "; write @task(retry_on=[OSError])"),
        ("countdown", "; write using(run_after=60)"),
        ("run_after", "; write using(run_after=60)"),
        ("serializer", ". The options are name, queue_name, priority, "),
        ("rate_limit", ": there are no rate limits yet."),
        ("unique", ": there are no unique tasks yet."),
        ("acks_late", ": leave it out, a task whose worker died is run again anyway."),
        ("schedule", ": there are no periodic tasks yet, enqueue it from a cron job."),
    ],
)
def test_an_option_of_other_task_queues_is_answered_with_ours(
    option: str, words: str
) -> None:
    message = refusal(function, **{option: 3})
    assert f"there is no option {option!r}{words}" in message


WRONG = [
    ("name", 5, "a string of 1 to 200 printable characters"),
    ("name", "", "a string of 1 to 200"),
    ("name", "x" * 201, "a string of 1 to 200"),
    ("name", " padded", "printable characters"),
    ("name", "NUL\x00", "printable characters"),
    ("queue_name", "x" * 101, "a string of 1 to 100"),
    ("queue_name", b"mail", "a string"),
    ("priority", 101, "a whole number from -100 to 100"),
    ("priority", -101, "a whole number"),
    ("priority", 1.5, "a whole number"),
    ("priority", True, "a whole number"),
    ("priority", None, "a whole number"),
    ("max_attempts", 0, "a whole number from 1"),
    ("max_attempts", 40_000, "a whole number from 1"),
    ("max_attempts", "3", "a whole number from 1"),
    ("backoff", "soon", "a function of (attempt, error)"),
    ("backoff", [], "a function of (attempt, error)"),
    ("backoff", [1, "2"], "a list of seconds"),
    ("backoff", [-1], "a list of seconds"),
    ("backoff", lambda: 5, "a function of (attempt, error)"),
    ("backoff", 5, "a RetryPolicy"),
    ("retry_on", "OSError", "an exception class"),
    ("retry_on", [OSError, "x"], "an exception class"),
    ("retry_on", [int], "an exception class"),
    ("give_up_on", OSError(), "an exception class"),
    ("time_limit", 0, "more than 0"),
    ("time_limit", -1, "not negative"),
    ("time_limit", "60", "a number of seconds or a timedelta"),
    ("time_limit", float("nan"), "a number of seconds"),
    ("soft_time_limit", True, "a number of seconds"),
    ("expires", timedelta(0), "more than 0"),
    ("atomic", 1, "True or False"),
    ("store_result", None, "True or False"),
    ("result_retention", -1, "not negative"),
    ("takes_context", "yes", "True or False"),
    ("sensitive", "value", "a list of names"),
    ("sensitive", [1], "a list of names"),
]


@pytest.mark.parametrize(("option", "value", "words"), WRONG)
def test_a_wrong_value_is_answered_with_what_to_write(
    option: str, value: Any, words: str
) -> None:
    message = refusal(function, **{option: value})
    assert f": {option} must be " in message
    assert words in message


def test_every_option_is_checked() -> None:
    checked = {option for option, *_ in WRONG}
    assert checked == {field.name for field in fields(TaskOptions)}


def test_a_soft_limit_beyond_the_hard_one_is_refused() -> None:
    words = refusal(function, time_limit=10, soft_time_limit=11)
    assert "soft_time_limit (11 s) must not be longer than time_limit (10 s)" in words


def test_a_nested_function_is_refused() -> None:
    def nested() -> None: ...

    assert "write a def at the top level of a module" in refusal(nested)


def test_a_lambda_is_refused() -> None:
    assert "top level of a module" in refusal(lambda: None)


@pytest.mark.parametrize(
    "method", [Holder.method, Holder.odd, Holder.static, Holder.Inner.method]
)
def test_a_function_inside_a_class_is_refused(method: Callable[..., Any]) -> None:
    words = refusal(method)
    assert "a worker has no instance to call a method of" in words
    assert "write a def at the top level of a module" in words


@pytest.mark.parametrize(
    ("thing", "words"),
    [
        (Holder, ", not a class; write a def at the top level"),
        (functools.partial(function, 1), ", not a functools.partial; write a def"),
        (vars(Holder)["static"], ", not a method; write a def"),
        (vars(Holder)["of_class"], ", not a method; write a def"),
        (Holder.of_class, ", not a method; write a def"),
        (Holder().method, ", not a method; write a def"),
        (Holder(), ", not an object that can be called (Holder); write a def at"),
        (print, ", not an object that can be called (builtin_function_or_method)"),
        (5, "; options are written as @task(name=..., ...)."),
        ("name", "; options are written as @task(name=..., ...)."),
    ],
)
def test_what_is_no_function_is_refused(thing: Any, words: str) -> None:
    assert f"it decorates a function{words}" in refusal(thing)


def test_a_name_in_place_of_the_function_is_refused() -> None:
    with pytest.raises(InvalidTask, match=r"written as @task\(name="):
        task("name")  # type: ignore[call-overload]


def test_a_task_is_not_declared_twice_over() -> None:
    words = refusal(task(function))
    assert f"and {__name__}.function is a task already; write @task once." in words


@pytest.mark.parametrize("function", [generator, async_generator])
def test_a_generator_is_refused(function: Callable[..., Any]) -> None:
    assert "a generator would never be run" in refusal(function)


@pytest.mark.parametrize("function", [function, wants_job, wants_keyword])
def test_a_context_needs_its_argument(function: Callable[..., Any]) -> None:
    words = refusal(function, takes_context=True)
    assert f"write def {function.__name__}(context, ...)" in words


def test_an_atomic_coroutine_is_refused() -> None:
    assert "write atomic=True on a plain def" in refusal(coroutine, atomic=True)


def test_sensitive_must_name_an_argument() -> None:
    words = refusal(function, sensitive=["valeu"])
    assert "sensitive names no argument: 'valeu'. Did you mean 'value'?" in words


def test_a_name_that_another_function_has_is_refused() -> None:
    declared(function, name="taken by function")
    words = refusal(coroutine, name="taken by function")
    assert "two tasks have the name 'taken by function'" in words
    assert f"{__name__}.function and {__name__}.coroutine" in words
