"""``@task``: checks the function and its options, and registers the definition."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Coroutine, Sequence
from datetime import timedelta
from types import MethodType
from typing import (
    Any,
    Concatenate,
    Literal,
    ParamSpec,
    Protocol,
    TypedDict,
    TypeVar,
    Unpack,
    overload,
)

from asgiref.sync import iscoroutinefunction

from django_jobs.context import TaskContext
from django_jobs.definitions import TaskDefinition, path_of, register
from django_jobs.exceptions import InvalidTask
from django_jobs.options import TaskOptions, did_you_mean, read_task_options
from django_jobs.parameters import Parameters, first_name
from django_jobs.retries import Backoff, RetryPolicy

P = ParamSpec("P")
R = TypeVar("R")

_Errors = type[BaseException] | Sequence[type[BaseException]]
_Seconds = float | timedelta


class _Options(TypedDict, total=False):
    """The options of ``@task`` for type checkers; ``TaskOptions`` is what is kept."""

    name: str | None
    queue_name: str | None
    priority: int
    max_attempts: int | None
    backoff: Backoff | RetryPolicy | None
    retry_on: _Errors
    give_up_on: _Errors
    time_limit: _Seconds | None
    soft_time_limit: _Seconds | None
    expires: _Seconds | None
    atomic: bool
    store_result: bool
    result_retention: _Seconds | None
    sensitive: bool | Sequence[str]


class _Decorator(Protocol):
    @overload
    def __call__(
        self, function: Callable[P, Coroutine[Any, Any, R]], /
    ) -> TaskDefinition[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> TaskDefinition[P, R]: ...


class _ContextDecorator(Protocol):
    @overload
    def __call__(
        self,
        function: Callable[Concatenate[TaskContext, P], Coroutine[Any, Any, R]],
        /,
    ) -> TaskDefinition[P, R]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[TaskContext, P], R], /
    ) -> TaskDefinition[P, R]: ...


@overload
def task(function: Callable[P, Coroutine[Any, Any, R]], /) -> TaskDefinition[P, R]: ...
@overload
def task(function: Callable[P, R], /) -> TaskDefinition[P, R]: ...
@overload
def task(
    *, takes_context: Literal[True], **options: Unpack[_Options]
) -> _ContextDecorator: ...
@overload
def task(
    *, takes_context: Literal[False] = False, **options: Unpack[_Options]
) -> _Decorator: ...
def task(function: Any = None, /, **options: Any) -> Any:
    """Declare a function as a task, ``@task`` or ``@task(option=...)``.

    InvalidTask says at import what cannot work and what to write instead.
    """
    if function is not None:
        return declare(function, options)
    return lambda decorated: declare(decorated, options)


def declare(function: Any, given: dict[str, Any]) -> TaskDefinition[..., Any]:
    """Return the registered definition of a function with the options given."""
    try:
        _refuse_what_is_no_task(function)
        options = read_task_options(given)
        check_fit(function, options)
    except ValueError as error:
        raise InvalidTask(f"@task {_label(function)}: {error}") from None
    definition: TaskDefinition[..., Any] = TaskDefinition(function, options)
    register(definition)
    return definition


def _label(function: object) -> str:
    return path_of(function) if inspect.isfunction(function) else repr(function)[:100]


def _refuse_what_is_no_task(function: Any) -> None:
    if not inspect.isfunction(function):
        raise ValueError(f"it decorates a function{_instead_of(function)}")
    if function.__name__ == "<lambda>" or "<locals>" in function.__qualname__:
        raise ValueError(
            "a worker cannot find a lambda or a function inside a function; write "
            "a def at the top level of a module."
        )
    if "." in function.__qualname__:
        raise ValueError(
            "a worker has no instance to call a method of, and finds no function "
            "inside a class; write a def at the top level of a module."
        )
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise ValueError(
            "a generator would never be run; return a list, or enqueue a task per item."
        )


def _instead_of(thing: object) -> str:
    """Say what a thing is that is no function, and what to write."""
    for kinds, words in _NO_FUNCTIONS:
        if isinstance(thing, kinds):
            return f"{words} write a def at the top level of a module."
    if isinstance(thing, TaskDefinition):
        return f", and {thing.name} is a task already; write @task once."
    if callable(thing):
        return (
            f", not an object that can be called ({type(thing).__qualname__}); write a "
            "def at the top level of a module that calls it."
        )
    return "; options are written as @task(name=..., ...)."


_NO_FUNCTIONS: tuple[tuple[Any, str], ...] = (
    (type, ", not a class;"),
    ((staticmethod, classmethod, MethodType), ", not a method;"),
    (functools.partial, ", not a functools.partial;"),
)


def check_fit(function: Callable[..., Any], options: TaskOptions) -> None:
    """Refuse options that the function cannot have; ValueError says what to write."""
    if options.takes_context and first_name(function) != "context":
        raise ValueError(
            "with takes_context=True the first argument is the context; write "
            f"def {function.__name__}(context, ...)."
        )
    if options.atomic and iscoroutinefunction(function):
        raise ValueError(
            "Django has no async transactions; write atomic=True on a plain def."
        )
    _check_names(function, options)


def _check_names(function: Callable[..., Any], options: TaskOptions) -> None:
    if isinstance(options.sensitive, bool):
        return
    parameters = Parameters(function, skip_first=options.takes_context)
    for name in options.sensitive:
        if name not in parameters.names and not parameters.takes_any_keyword:
            hint = did_you_mean(name, parameters.names)
            raise ValueError(f"sensitive names no argument: {name!r}.{hint}")
