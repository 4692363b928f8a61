"""What tasks return and raise that cannot be looked at, or not to its end."""

from __future__ import annotations

import asyncio
import itertools
import math
import sys
from collections import UserDict, namedtuple
from collections.abc import Callable, Iterator
from datetime import datetime
from decimal import Decimal
from typing import Any

from django_jobs import task

# -- errors ----------------------------------------------------------------------------


class Mute(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")

    __repr__ = __str__


class Deadly(RuntimeError):
    """Whoever looks at it leaves."""

    def __str__(self) -> str:
        raise SystemExit("not even this")

    __repr__ = __str__


class DeadlyNumber(OSError):
    @property
    def errno(self) -> int:  # type: ignore[override]
        raise SystemExit("no number")


class NoText(Exception):
    def __str__(self) -> str:
        return 5  # type: ignore[return-value]


class _Nameless(type):
    """A class that cannot be named."""

    def __getattribute__(cls, name: str) -> Any:
        if name in ("__name__", "__qualname__", "__module__"):
            raise SystemExit("no name")
        return super().__getattribute__(name)

    def __repr__(cls) -> str:
        raise SystemExit("no text of a class")


class Nameless(Exception, metaclass=_Nameless):
    pass


class Disguised(Exception):
    @property
    def __class__(self) -> Any:  # type: ignore[override]
        raise ValueError("no class")


class Possessive(Exception):
    """Cannot be copied, and keeps what nobody can send elsewhere."""

    def __init__(self, lock: object, *, needed: int) -> None:
        self.lock, self.needed = lock, needed

    def __reduce__(self) -> Any:
        raise TypeError("not to be copied")


class Causeless(Exception):
    @property
    def __cause__(self) -> Any:  # type: ignore[override]
        raise SystemExit("no cause")


class Odd(BaseException):
    """No Exception, and no exit."""


class Pair(Odd, SystemExit):
    """An exit as well."""


def _cyclic_cause() -> BaseException:
    first, second = ValueError("first"), KeyError("second")
    first.__cause__, second.__cause__ = second, first
    return first


def _cyclic_context() -> BaseException:
    first, second = ValueError("first"), KeyError("second")
    first.__context__, second.__context__ = second, first
    return first


def _chain(length: int) -> BaseException:
    error = ValueError("the first of many")
    for number in range(length):
        following = ValueError(str(number))
        following.__cause__ = error
        error = following
    return error


def _deep_group() -> BaseException:
    error: Exception = ValueError("within")
    for _ in range(1000):
        error = ExceptionGroup("around", [error])
    return error


def _recursive() -> BaseException:
    try:
        return _recursive()
    except RecursionError as error:
        return error


#: Kind -> what is raised, by what stands in its record.
ERRORS: dict[str, dict[str, Callable[[], BaseException]]] = {
    "Mute": {"no text": Mute},
    "Deadly": {"an exit in its text": Deadly},
    "DeadlyNumber": {"an exit in its number": lambda: DeadlyNumber(1, "no")},
    "NoText": {"a text that is none": NoText},
    "Nameless": {"a class without a name": Nameless},
    "Disguised": {"no class": Disguised},
    "Possessive": {"not to be copied": lambda: Possessive(iter([]), needed=1)},
    "Causeless": {"an exit in its cause": Causeless},
    "ValueError": {
        "a cyclic cause": _cyclic_cause,
        "a cyclic context": _cyclic_context,
        "a long chain": lambda: _chain(100_000),
        "a huge text": lambda: ValueError("x" * 20_000_000),
        "a huge text of lines": lambda: ValueError("x\n" * 1_000_000),
        "huge arguments": lambda: ValueError(b"\0" * 10_000_000, "\ud800" * 10_000_000),
        "texts no database takes": lambda: ValueError("\0 \ud800 \udfff\ud83d\ude00"),
    },
    "ExceptionGroup": {
        "a deep group": _deep_group,
        "a wide group": lambda: ExceptionGroup("many", [ValueError()] * 100_000),
    },
    "RecursionError": {"no stack left": _recursive},
    "StopIteration": {"the end of an iterator": lambda: StopIteration("over")},
    "GeneratorExit": {"the end of a generator": GeneratorExit},
    "KeyboardInterrupt": {"a key": KeyboardInterrupt},
    "CancelledError": {"cancelled": asyncio.CancelledError},
    "SystemExit": {
        "an exit": SystemExit,
        "an exit with None": lambda: SystemExit(None),
        "an exit with a text": lambda: SystemExit("text"),
        "an exit with a large number": lambda: SystemExit(10**20),
    },
    "Odd": {"no Exception": Odd},
    "Pair": {"no Exception, but an exit": Pair},
}
_ERRORS = {kind: make for kinds in ERRORS.values() for kind, make in kinds.items()}


@task(max_attempts=1)
def raise_odd(kind: str) -> None:
    raise _ERRORS[kind]()


@task(max_attempts=1)
async def async_raise_odd(kind: str) -> None:
    raise _ERRORS[kind]()


# -- values ----------------------------------------------------------------------------


class Hidden:
    """An object that raises whatever it is asked."""

    @property
    def __class__(self) -> Any:  # type: ignore[override]
        raise ValueError("no class")

    def __eq__(self, other: object) -> bool:
        raise ValueError("not to be compared")

    __hash__ = None  # type: ignore[assignment]

    def __getattr__(self, name: str) -> Any:
        raise ValueError("no attributes")

    def __repr__(self) -> str:
        raise ValueError("no text")


class HiddenKey:
    def __repr__(self) -> str:
        raise ValueError("no text")


class Number(int):
    def __lt__(self, other: object) -> bool:
        raise ValueError("not to be compared")

    __gt__ = __lt__


class Restless(dict[Any, Any]):
    def items(self) -> Any:
        raise KeyError("nothing to see")


def _cyclic() -> Any:
    value: list[Any] = []
    value.append({"again": value})
    return value


def _deep(levels: int) -> Any:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


async def _coroutine() -> None: ...


def _generator() -> Iterator[int]:
    yield 1


#: Kind -> a value that cannot be stored, and what is said of it.
REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "an object": (object, "no JSON type"),
    "a hidden one": (Hidden, "ValueError"),
    "a hidden key": (lambda: {HiddenKey(): 1}, "HiddenKey is not a string"),
    "a number that compares to nothing": (lambda: Number(5), "ValueError"),
    "a dict without items": (lambda: Restless(a=1), "KeyError"),
    "a generator": (_generator, "generator is no JSON type"),
    "a function": (lambda: print, "no JSON type"),
    "a class": (lambda: Hidden, "no JSON type"),
    "an endless iterator": (itertools.count, "no JSON type"),
    "a set": (lambda: {1}, "sorted("),
    "bytes": (lambda: b"raw", "base64"),
    "a memoryview": (lambda: memoryview(b"raw"), "base64"),
    "a view of a dict": ({}.keys, "no JSON type"),
    "a dict that is none": (lambda: UserDict(a=1), "no JSON type"),
    "nan": (lambda: math.nan, "nan has no place"),
    "infinity": (lambda: [-math.inf], "-inf has no place"),
    "a decimal that is none": (lambda: Decimal("NaN"), "Decimal NaN"),
    "a complex number": (lambda: 1j, "complex is no JSON type"),
    "a number of 5,000 digits": (lambda: 10**5000, "4300 digits"),
    "int keys": (lambda: {1: 2}, "the key 1 is not a string"),
    "a tuple as key": (lambda: {(1, 2): 3}, "the key (1, 2)"),
    "itself within": (_cyclic, "contains itself"),
    "100,000 levels": (lambda: _deep(100_000), "too deeply"),
    "101 levels": (lambda: _deep(101), "too deeply"),
    "17 MB": (lambda: "x" * 17_000_000, "bytes"),
}
Point = namedtuple("Point", "x y")
#: Kind -> a value that comes back, and as what.
KEPT: dict[str, tuple[Any, Any]] = {
    "NUL": ("a\0b", "a\0b"),
    "NUL in a key": ({"a\0b": 1}, {"a\0b": 1}),
    "a lone surrogate": ("\ud800", "\ud800"),
    "a lone surrogate in a key": ({"\udfff": "\ud83d"}, {"\udfff": "\ud83d"}),
    "1e16": (1e16, 1e16),
    "1e22": (1e22, 1e22),
    "1e308": (1e308, 1e308),
    "-0.0": (-0.0, -0.0),
    "the order of keys": ({"b": 1, "a": 2, "c": 3}, {"b": 1, "a": 2, "c": 3}),
    "2**64": (2**64, 2**64),
    "10**400": (10**400, 10**400),
    "4,300 digits": (10**4299, 10**4299),
    "99 levels": (_deep(98), _deep(98)),
    "a tuple": ((1, (2,)), [1, [2]]),
    "a named tuple": (Point(1, 2), [1, 2]),
    "true, 1 and 1.0": ([True, 1, 1.0], [True, 1, 1.0]),
    "what looks like a tag": ({"$date": "x"}, {"$date": "x"}),
    "the first year": (datetime(1, 1, 1), datetime(1, 1, 1)),
    "the last moment": (datetime.max, datetime.max),
    "quotes": ("'\"\\%s%%{0}\n", "'\"\\%s%%{0}\n"),
    "other planes": ("\U0001f600\u2028", "\U0001f600\u2028"),
}


@task(max_attempts=3)
def return_refused(kind: str) -> Any:
    return REFUSED[kind][0]()


@task(max_attempts=3)
async def async_return_refused(kind: str) -> Any:
    return REFUSED[kind][0]()


@task
def return_kept(kind: str) -> Any:
    return KEPT[kind][0]


@task
def give_back(value: Any, **more: Any) -> Any:
    return value


@task(max_attempts=1)
def fail_with(text: str) -> None:
    raise ValueError(text)


@task(takes_context=True)
def note(context, kind: str, place: str) -> None:
    """Have a value in the metadata, or tell it as progress."""
    value = KEPT[kind][0] if kind in KEPT else REFUSED[kind][0]()
    if place == "metadata":
        context.metadata["value"] = value
        context.save_metadata()
    elif place == "progress":
        context.progress(1, 2, value)


@task(max_attempts=3)
def return_coroutine() -> Any:
    coroutine = _coroutine()
    sys.last_coroutine = coroutine  # type: ignore[attr-defined]
    return coroutine
