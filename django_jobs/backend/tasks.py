"""``JobsTask``: Django's ``Task`` with our options, for its decorator and ``using()``.

Django 6.0 passes no further keywords through its decorator; ``using()`` takes ours on
every version.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

from django_jobs import calling
from django_jobs.backend.api import AnyTask, InvalidTask, Task
from django_jobs.backend.values import plain
from django_jobs.definitions import path_of
from django_jobs.exceptions import seconds
from django_jobs.hints import instead_of, missing
from django_jobs.options import (
    UNSET,
    TaskOptions,
    Unset,
    no_option_of_task,
    no_option_of_using,
)
from django_jobs.retries import Backoff, ErrorClasses, RetryPolicy

_Task = TypeVar("_Task", bound="AnyTask")


@dataclass(frozen=True, kw_only=True)
class JobsTask(Task):  # type: ignore[type-arg] # no Generic in Django 6
    """A task declared with Django's decorator; times are seconds or timedeltas."""

    # The alias' OPTIONS["MAX_ATTEMPTS"] when None.
    max_attempts: int | None = None
    backoff: Backoff | RetryPolicy | None = None
    retry_on: ErrorClasses = ()
    give_up_on: ErrorClasses = ()
    time_limit: float | timedelta | None = None
    soft_time_limit: float | timedelta | None = None
    #: The latest start; a datetime only by ``using()``.
    expires: datetime | float | timedelta | None = None
    atomic: bool = False
    store_result: bool = True
    result_retention: float | timedelta | Unset | None = UNSET
    sensitive: bool | tuple[str, ...] = False
    metadata: dict[str, Any] = field(default_factory=dict, hash=False)
    on_commit: bool | str | None = None
    # Seconds from the insert, where ``run_after`` is no datetime.
    _delay: float | None = None

    if not TYPE_CHECKING:  # a type checker is to see the fields

        def __new__(cls, **given: Any) -> JobsTask:
            """Refuse options that there are not, before the dataclass does."""
            for name in given:
                if name not in cls.__dataclass_fields__:
                    words = no_option_of_task(name, DECLARABLE)
                    raise TypeError(f"@task {path_of(given['func'])}: {words}")
            return object.__new__(cls)

        def __getattr__(self, name: str) -> NoReturn:
            """Say what to write in place of what the tasks of others can do."""
            ours = ""
            if not name.startswith("_") and name != "func":
                ours = instead_of(name, self.func.__name__)
            raise missing(self, name, "" if ".s(" in ours else ours)

    def __post_init__(self) -> None:
        for name in ("backoff", "retry_on", "give_up_on", "sensitive"):
            if isinstance(value := getattr(self, name), (list, set, frozenset)):
                object.__setattr__(self, name, tuple(value))  # hashable
        if self.metadata:
            object.__setattr__(self, "metadata", _checked(self.metadata))
        Task.__post_init__(self)

    def using(
        self,
        *,
        priority: int | None = None,
        queue_name: str | None = None,
        run_after: datetime | timedelta | float | None = None,
        backend: str | None = None,
        **options: Any,
    ) -> JobsTask:
        """Return a copy with other options; None leaves one as it is.

        Beside Django's: expires, max_attempts, time_limit, metadata, on_commit; and
        ``run_after`` may be seconds or a timedelta, counted from the insert.
        """
        for name in options:
            if name not in USING_OPTIONS:
                known = (*_DJANGOS, *USING_OPTIONS)
                raise TypeError(no_option_of_using(name, known))
        options |= {"priority": priority, "queue_name": queue_name, "backend": backend}
        changes = {key: value for key, value in options.items() if value is not None}
        if isinstance(run_after, (int, float, timedelta)):
            changes |= {"run_after": None, "_delay": seconds(run_after)}
        elif run_after is not None:
            changes |= {"run_after": run_after, "_delay": None}
        return replace(self, **changes)

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """Run the function here and now, without the queue; as ``atomic`` says."""
        return calling.call(self._direct(args, kwargs))

    async def acall(self, *args: Any, **kwargs: Any) -> Any:
        """Do as ``call``, without blocking the event loop."""
        return await calling.acall(self._direct(args, kwargs))

    def _direct(self, args: Any, kwargs: Any) -> calling.Call:
        database = self.get_backend().options.get("DATABASE")
        alias = calling.alias_of(self.atomic, database)
        return calling.Call(self.func, args, kwargs, alias)


def _checked(metadata: Any) -> dict[str, Any]:
    """Return the metadata as JSON has it, a copy."""
    if not isinstance(metadata, dict):
        raise InvalidTask("metadata must be a dict.")
    if not all(isinstance(key, str) for key in metadata):
        raise InvalidTask("metadata keys must be strings.")
    try:
        plain_metadata: dict[str, Any] = plain(metadata)
    except (TypeError, ValueError) as error:
        raise InvalidTask(f"metadata must be JSON-serializable: {error}") from error
    return plain_metadata


#: Options of ``using()`` that Django's has not.
USING_OPTIONS: Final = (
    "expires",
    "max_attempts",
    "time_limit",
    "metadata",
    "on_commit",
)
#: Options of the decorator: Django's, then ours.
DECLARABLE: Final = (
    *("priority", "queue_name", "backend", "takes_context"),
    *(
        each.name
        for each in fields(JobsTask)
        if each.name not in {*(one.name for one in fields(Task)), "_delay"}
    ),
)
_DJANGOS: Final = ("priority", "queue_name", "run_after", "backend")
#: Fields in which a copy by ``using()`` may differ, beside those with a column.
CHOSEN: Final = (*USING_OPTIONS, "run_after", "_delay", "backend")
#: Options of a declaration that hold for all of its copies.
_DECLARED: Final = tuple(
    each.name for each in fields(TaskOptions) if each.name not in ("name", "expires")
)


def declared_options(task: AnyTask) -> dict[str, Any]:
    """Return the options of a declaration, as ``read_task_options`` takes them."""
    options = {name: getattr(task, name) for name in _DECLARED if hasattr(task, name)}
    expires = getattr(task, "expires", None)
    if not isinstance(expires, datetime):
        options["expires"] = expires
    if isinstance(options.get("result_retention"), Unset):
        del options["result_retention"]
    return options


def chosen_options(task: AnyTask, names: Iterable[str] = CHOSEN) -> dict[str, Any]:
    """Return the named options, where the task has them."""
    return {name: getattr(task, name) for name in names if hasattr(task, name)}


def copy_with(task: _Task, changes: Mapping[str, Any]) -> _Task:
    """Return a copy that is not validated: what was enqueued once may be looked at."""
    copy: _Task = object.__new__(type(task))
    for each in fields(task):
        value = changes.get(each.name, getattr(task, each.name))
        object.__setattr__(copy, each.name, value)
    return copy
