"""Values to ASCII JSON text and back.

JSON's own types pass as they are, tuples become lists. Six types of the standard
library travel as an object with one tagged key::

    {"$datetime": "2026-11-21T12:00:00+00:00"}    {"$date": "2026-11-21"}
    {"$timedelta": [days, seconds, micros]}       {"$time": "12:00:00"}
    {"$decimal": "1.10"}                          {"$uuid": "0199..."}

A user's dict of one key that starts with "$" gets one more "$", taken off on the way
back. Everything else is refused, and the error names the path to it. ASCII, because
databases differ in what they take beyond it: NUL and lone surrogates are escapes here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from math import isfinite
from typing import Any
from uuid import UUID

from django.utils.functional import Promise

from django_jobs.exceptions import InvalidArguments
from django_jobs.tracebacks import name_of

MAX_DEPTH = 100

#: More digits than that no Python reads with its default limits.
_MAX_DIGITS = 4300
_TOO_BIG = 10**_MAX_DIGITS
#: Two code points that would come back from JSON as one character.
_SURROGATE_PAIR = re.compile("(?<=[\ud800-\udbff])(?=[\udc00-\udfff])")
_TOO_DEEP = "too deep"
#: So many steps of a path are shown from its start and from its end.
_STEPS_SHOWN = 4

#: What the types of the tags raise besides ValueError for what is none of theirs.
_UNTOLD = (ArithmeticError, AttributeError, RecursionError, TypeError)

_Handler = Callable[[Any, int], Any]


def dumps(value: object, *, path: str = "", max_depth: int = MAX_DEPTH) -> str:
    """Return the value as JSON; InvalidArguments names the path to a bad value."""
    try:
        return _encode(_plain(value, max_depth))
    except _Refused as refused:
        words = refused.words(value, path)
    except RecursionError:
        words = f"{path or 'the value'}: nested too deeply for Python to follow"
    except MemoryError:
        raise
    except Exception as error:
        words = f"{path or 'the value'}: {_raised(error)}"
    raise InvalidArguments(words)


def loads(text: str) -> Any:
    """Return the value of a text that ``dumps`` wrote; ValueError when none did."""
    try:
        return (_decode_tagged if '"$' in text else _decode)(text)
    except _UNTOLD as error:
        raise ValueError(f"not written by dumps: {error}") from error


class _Refused(Exception):
    """A value that is no JSON; the way back up adds the steps that led to it."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why
        self.steps: list[int | str] = []

    def words(self, value: object, path: str) -> str:
        steps = self.steps[::-1]
        why = self.why
        if why is _TOO_DEEP:
            why = (
                "nested too deeply, more lists and dicts one inside the other than "
                "PAYLOAD_MAX_DEPTH"
            )
            if _meets_itself(value, steps):
                why = "contains itself"
        if len(steps) > 2 * _STEPS_SHOWN:
            shown = _join(steps[:_STEPS_SHOWN]) + "..." + _join(steps[-_STEPS_SHOWN:])
        else:
            shown = _join(steps)
        return f"{path + shown or 'the value'}: {why}"


def _join(steps: Sequence[int | str]) -> str:
    return "".join(f"[{_brief(step)}]" for step in steps)


def _brief(key: object) -> str:
    try:
        return f"{key!r:.60}"
    except Exception:
        return f"of the class {name_of(type(key))}"


def _meets_itself(value: Any, steps: Sequence[int | str]) -> bool:
    seen = {id(value)}
    for step in steps:
        value = value[step]
        if id(value) in seen:
            return True
        seen.add(id(value))
    return False


# -- to JSON -----------------------------------------------------------------------

_encode = json.JSONEncoder(
    check_circular=False, allow_nan=False, separators=(",", ":")
).encode


def _plain(value: Any, room: int) -> Any:
    """Return what the JSON encoder may take; ``room`` is the depth that is left."""
    handler = _HANDLERS.get(type(value))
    if handler is not None:
        return handler(value, room)
    try:
        return _handler_of_base(value)(value, room)
    except (_Refused, RecursionError, MemoryError):
        raise
    except Exception as error:
        raise _Refused(_raised(error)) from error


def _raised(error: Exception) -> str:
    return f"looking at it raised {name_of(type(error))}"


def _as_it_is(value: Any, room: int) -> Any:
    return value


def _text(value: str, room: int) -> Any:
    if value.isascii() or not _SURROGATE_PAIR.search(value):
        return value
    return {"$text": _SURROGATE_PAIR.split(value)}


def _int(value: int, room: int) -> int:
    if -_TOO_BIG < value < _TOO_BIG:
        return value
    raise _Refused(f"an int of more than {_MAX_DIGITS} digits; pass it as a string")


def _float(value: float, room: int) -> float:
    if isfinite(value):
        return value
    raise _Refused(f"{float(value)} has no place in JSON; pass None or a string")


def _list(value: Sequence[Any], room: int) -> Sequence[Any]:
    if room <= 0:
        raise _Refused(_TOO_DEEP)
    if len(value) > _WORTH_A_LOOK and _is_all_of_one_kind(value):
        return value
    plain: list[Any] = []
    try:
        for item in value:
            plain.append(_plain(item, room - 1))  # its length is the step
    except _Refused as refused:
        refused.steps.append(len(plain))
        raise
    return plain


#: From this length on a list is asked as a whole first.
_WORTH_A_LOOK = 8
_IS_ALL_PLAIN: dict[type, Callable[[Any], bool]] = {
    int: lambda ints: min(ints) > -_TOO_BIG and max(ints) < _TOO_BIG,
    str: lambda texts: all(map(str.isascii, texts)),
    float: lambda floats: all(map(isfinite, floats)),
}


def _is_all_of_one_kind(value: Sequence[Any]) -> bool:
    """Tell at the speed of C, five times that of the walk, that a list may pass."""
    kind, *others = set(map(type, value))
    check = _IS_ALL_PLAIN.get(kind)
    return not others and check is not None and check(value)


def _dict(value: dict[Any, Any], room: int) -> dict[str, Any]:
    if room <= 0:
        raise _Refused(_TOO_DEEP)
    plain = {}
    for key, item in value.items():
        if not isinstance(key, str) or _SURROGATE_PAIR.search(key):
            raise _Refused(f"the key {_brief(key)} is not a string that JSON can keep")
        try:
            plain[key] = _plain(item, room - 1)
        except _Refused as refused:
            refused.steps.append(key)
            raise
    return {f"${key}": plain[key]} if len(plain) == 1 and key[:1] == "$" else plain


def _time(value: time, room: int) -> dict[str, str]:
    if value.tzinfo is not None and value.utcoffset() is None:
        raise _Refused(f"a time in {value.tzinfo} without a date; pass a datetime")
    return {"$time": value.isoformat()}


def _decimal(value: Decimal, room: int) -> dict[str, str]:
    if value.is_finite():
        return {"$decimal": str(value)}
    raise _Refused(f"Decimal {value} has no place in JSON; pass None or a string")


#: The more special classes first: a datetime is a date, a bool is an int.
_HANDLERS: dict[type, _Handler] = {
    str: _text,
    bool: _as_it_is,
    int: _int,
    type(None): _as_it_is,
    float: _float,
    dict: _dict,
    list: _list,
    tuple: _list,
    datetime: lambda value, room: {"$datetime": value.isoformat()},
    date: lambda value, room: {"$date": value.isoformat()},
    time: _time,
    timedelta: lambda value, room: {
        "$timedelta": [value.days, value.seconds, value.microseconds]
    },
    Decimal: _decimal,
    UUID: lambda value, room: {"$uuid": str(value)},
    Promise: lambda value, room: _text(str(value), room),
}


def _handler_of_base(value: object) -> _Handler:
    for base, handler in _HANDLERS.items():
        if isinstance(value, base):
            return handler
    name = type(value).__qualname__
    raise _Refused(f"{name} is no JSON type{_hint(value)}")


def _hint(value: object) -> str:
    """Say what to pass instead, by what the value can do; no class is imported."""
    if hasattr(type(value), "_meta") and hasattr(value, "pk"):
        return ", it is a model instance; pass its pk and fetch it in the task"
    if hasattr(value, "values_list"):
        return '; pass list(queryset.values_list("pk", flat=True))'
    if hasattr(value, "value") and hasattr(value, "name"):
        return "; pass its value"
    for classes, hint in _HINTS:
        if isinstance(value, classes):
            return f"; pass {hint}"
    return "; pass text, numbers, lists, dicts, or " + _names_of_tagged()


def _names_of_tagged() -> str:
    """Name the types that travel with a tag."""
    *names, last = (each.__name__ for each in _TAGGED)
    return f"{', '.join(names)} and {last}"


#: The types of the standard library that come back as they were.
_TAGGED = (datetime, date, time, timedelta, Decimal, UUID)
_HINTS: tuple[tuple[tuple[type, ...], str], ...] = (
    ((set, frozenset), "a list: sorted(...)"),
    ((bytes, bytearray, memoryview), "text: base64.b64encode(...).decode()"),
)


# -- from JSON ---------------------------------------------------------------------


def _untag(value: dict[str, Any]) -> Any:
    if len(value) != 1:
        return value
    (key, content) = next(iter(value.items()))
    if not key.startswith("$"):
        return value
    if key.startswith("$$"):
        return {key[1:]: content}
    if key not in _TYPES:
        raise ValueError(f"unknown tag {key!r}: written by a later version?")
    return _TYPES[key](content)


_TYPES: dict[str, Callable[[Any], Any]] = {
    "$datetime": datetime.fromisoformat,
    "$date": date.fromisoformat,
    "$time": time.fromisoformat,
    "$timedelta": lambda parts: timedelta(*parts),
    "$decimal": Decimal,
    "$uuid": UUID,
    "$text": "".join,
}

_decode = json.JSONDecoder().decode
_decode_tagged = json.JSONDecoder(object_hook=_untag).decode
