"""The options of a task: what each may be, and the words for what is wrong."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypedDict

from django.conf import settings
from django.utils import timezone

from django_jobs.conf import conf
from django_jobs.exceptions import PayloadTooLarge, seconds
from django_jobs.hints import absent, note_of, our_option
from django_jobs.retries import Backoff, ErrorClasses, RetryPolicy
from django_jobs.serializers import dumps

PRIORITY_MIN = -100
PRIORITY_MAX = 100
#: Lengths of the columns.
NAME_LENGTH = 200
QUEUE_LENGTH = 100
_MOST_ATTEMPTS = 32_767


class Unset:
    """The type of ``UNSET``: not given, where None has a meaning of its own."""

    def __repr__(self) -> str:
        return "UNSET"

    def __reduce__(self) -> str:
        return "UNSET"  # copies and pickles are the very same object


UNSET: Final = Unset()


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskOptions:
    """What ``@task`` was given; None takes what the settings say. Times in seconds."""

    name: str | None = None
    queue_name: str | None = None
    priority: int = 0
    max_attempts: int | None = None
    backoff: Backoff | RetryPolicy | None = None
    retry_on: ErrorClasses = ()
    give_up_on: ErrorClasses = ()
    time_limit: float | None = None
    soft_time_limit: float | None = None
    expires: float | None = None
    atomic: bool = False
    store_result: bool = True
    result_retention: float | Unset | None = UNSET
    takes_context: bool = False
    sensitive: bool | tuple[str, ...] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class EnqueueOptions:
    """What ``using()`` was given; None takes what the task declares."""

    run_after: datetime | float | None = None
    priority: int | None = None
    queue_name: str | None = None
    expires: datetime | float | None = None
    max_attempts: int | None = None
    time_limit: float | None = None
    metadata: str = "{}"
    on_commit: bool | str | None = None


class UsingOptions(TypedDict, total=False):
    """The options of ``using()`` as they are given; None leaves one as it is."""

    run_after: datetime | timedelta | float | None
    priority: int | None
    queue_name: str | None
    expires: datetime | timedelta | float | None
    max_attempts: int | None
    time_limit: timedelta | float | None
    metadata: dict[str, Any] | None
    on_commit: bool | str | None


def read_task_options(given: Mapping[str, Any]) -> TaskOptions:
    """Return the checked options of ``@task``; ValueError says what to write."""
    for name in given:
        if name not in _TASK_CHECKS:
            raise ValueError(no_option_of_task(name, _TASK_CHECKS))
    options = TaskOptions(**_checked(given, _TASK_CHECKS))
    soft, hard = options.soft_time_limit, options.time_limit
    if soft is not None and hard is not None and soft > hard:
        raise ValueError(
            f"soft_time_limit ({soft:g} s) must not be longer than time_limit "
            f"({hard:g} s): the process would be killed first."
        )
    return options


def read_enqueue_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the checked options of ``using()`` that are not None.

    ValueError says what to write, and TypeError that there is no such option.
    """
    for name in given:
        if name not in _ENQUEUE_CHECKS:
            raise TypeError(no_option_of_using(name, _ENQUEUE_CHECKS))
    some = {name: value for name, value in given.items() if value is not None}
    return _checked(some, _ENQUEUE_CHECKS)


def no_option_of_task(name: str, names: Iterable[str]) -> str:
    """Return the words for an option that ``@task`` has not."""
    return f"there is no option {name!r}" + _hint(
        name, names, "@task", "using", _ENQUEUE_CHECKS
    )


def no_option_of_using(name: str, names: Iterable[str]) -> str:
    """Return the words for an option that ``using()`` has not."""
    hint = _hint(name, names, "using", "@task", _TASK_CHECKS)
    return f"using() has no option {name!r}{hint}"


def _hint(
    name: str, names: Iterable[str], here: str, there: str, others: Iterable[str]
) -> str:
    """Say what to write, by the words of others, the other place or the spelling."""
    ours, example = our_option(name)
    if ours in names:
        return f"; write {here}({example}){note_of(ours)}"
    if why := absent(name):
        return f": {why}."
    if ours in others:
        return f"; write {there}({example}){note_of(ours)}"
    return "." + (did_you_mean(name, names) or f" The options are {', '.join(names)}.")


def refuse_nonsense(chosen: EnqueueOptions, soft_time_limit: float | None) -> None:
    """Refuse options of ``using()`` that contradict each other, or the task's own."""
    due, expiry, limit = chosen.run_after, chosen.expires, chosen.time_limit
    if isinstance(due, datetime) and isinstance(expiry, datetime) and expiry <= due:
        raise ValueError(f"it expires at {expiry}, before it may run at {due}.")
    if soft_time_limit is not None and limit is not None and soft_time_limit > limit:
        raise ValueError(
            f"time_limit ({limit:g} s) must not be shorter than the task's "
            f"soft_time_limit ({soft_time_limit:g} s)."
        )


def did_you_mean(name: str, names: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(names), 1)
    return f" Did you mean {near[0]!r}?" if near else ""


def _checked(
    given: Mapping[str, Any], checks: Mapping[str, Callable[[Any], Any]]
) -> dict[str, Any]:
    checked = {}
    for name, value in given.items():
        try:
            checked[name] = checks[name](value)
        except _Wrong as wrong:
            raise ValueError(f"{name} must be {wrong}, not {value!r:.100}.") from None
    return checked


class _Wrong(Exception):
    """Says what the value must be."""


def _text(length: int) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        is_clean = isinstance(value, str) and value.isprintable()
        if is_clean and value == value.strip() and 0 < len(value) <= length:
            return str(value)
        raise _Wrong(f"a string of 1 to {length} printable characters")

    return check


def _whole(low: int, high: int) -> Callable[[Any], int]:
    def check(value: Any) -> int:
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        if is_whole and low <= value <= high:
            return int(value)
        raise _Wrong(f"a whole number from {low} to {high}")

    return check


def _flag(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise _Wrong("True or False")


def _duration(value: Any) -> float:
    try:
        return seconds(value)
    except (TypeError, ValueError):
        raise _Wrong("a number of seconds or a timedelta, not negative") from None


def _limit(value: Any) -> float:
    if not (limit := _duration(value)):
        raise _Wrong("a number of seconds or a timedelta, more than 0")
    return limit


def _classes(value: Any) -> ErrorClasses:
    classes = (value,) if isinstance(value, type) else value
    if isinstance(classes, (list, tuple)) and all(
        isinstance(each, type) and issubclass(each, BaseException) for each in classes
    ):
        return tuple(classes)
    raise _Wrong("an exception class or a list of them")


def _backoff(value: Any) -> Backoff | RetryPolicy:
    if isinstance(value, RetryPolicy):
        return value
    try:
        RetryPolicy(backoff=value)
    except (TypeError, ValueError):
        raise _Wrong(
            "a function of (attempt, error) that returns seconds, a list of seconds, "
            "or a RetryPolicy"
        ) from None
    return tuple(value) if isinstance(value, list) else value


def _names(value: Any) -> bool | tuple[str, ...]:
    if isinstance(value, bool):
        return value
    if isinstance(value, (list, tuple, set, frozenset)) and all(
        isinstance(each, str) for each in value
    ):
        return tuple(value)
    raise _Wrong("True or a list of names of arguments")


def _moment(value: Any) -> datetime | float:
    if not isinstance(value, datetime):
        try:
            return seconds(value)
        except (TypeError, ValueError):
            raise _Wrong(
                "a datetime, or a timedelta or seconds from now, not negative"
            ) from None
    if timezone.is_naive(value):
        if settings.USE_TZ:
            raise _Wrong("an aware datetime, like timezone.now() + timedelta(hours=1)")
        value = timezone.make_aware(value, timezone.get_default_timezone())
    return _in_utc(value)


def _in_utc(value: datetime) -> datetime:
    """Keep to what every database can store."""
    try:
        value = value.astimezone(UTC)
    except OverflowError:
        value = datetime.min.replace(tzinfo=UTC)
    if not 1970 <= value.year <= 9900:  # with room for an expiry after it
        raise _Wrong("a datetime from 1970 to 9900")
    return value


def _metadata(value: Any) -> str:
    if not isinstance(value, dict):
        raise _Wrong("a dict")
    text = dumps(value, path="metadata", max_depth=conf().PAYLOAD_MAX_DEPTH)
    if len(text) > (most := conf().PAYLOAD_MAX_BYTES):
        raise PayloadTooLarge(f"metadata has {len(text)} bytes of JSON, over {most}")
    return text


def _on_commit(value: Any) -> bool | str:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value in settings.DATABASES:
        return value
    raise _Wrong("True, False or the alias of a database")


def _or_none(check: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else check(value)


_TASK_CHECKS: dict[str, Callable[[Any], Any]] = {
    "name": _or_none(_text(NAME_LENGTH)),
    "queue_name": _or_none(_text(QUEUE_LENGTH)),
    "priority": _whole(PRIORITY_MIN, PRIORITY_MAX),
    "max_attempts": _or_none(_whole(1, _MOST_ATTEMPTS)),
    "backoff": _or_none(_backoff),
    "retry_on": _classes,
    "give_up_on": _classes,
    "time_limit": _or_none(_limit),
    "soft_time_limit": _or_none(_limit),
    "expires": _or_none(_limit),
    "atomic": _flag,
    "store_result": _flag,
    "result_retention": _or_none(_duration),
    "takes_context": _flag,
    "sensitive": _names,
}
_ENQUEUE_CHECKS: dict[str, Callable[[Any], Any]] = {
    "run_after": _moment,
    "priority": _whole(PRIORITY_MIN, PRIORITY_MAX),
    "queue_name": _text(QUEUE_LENGTH),
    "expires": _moment,
    "max_attempts": _whole(1, _MOST_ATTEMPTS),
    "time_limit": _limit,
    "metadata": _metadata,
    "on_commit": _on_commit,
}
