"""The arguments of a task in one line, for lists and logs."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from django_jobs.texts import shorten

#: Length of the column.
LENGTH = 200
MASK = "***"
#: Characters that an old MySQL database refuses; the arguments themselves are ASCII.
_BEYOND_UTF8MB3 = re.compile("[\U00010000-\U0010ffff]")


def summarise(
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    sensitive: bool | Collection[int | str] = (),
) -> str:
    """Return the arguments in at most 200 characters.

    ``sensitive`` names what is masked, by position or keyword; True masks all.
    """
    parts = [_brief(value, place, sensitive) for place, value in enumerate(args)]
    parts += [f"{_name(key)}={_brief(kwargs[key], key, sensitive)}" for key in kwargs]
    return shorten(_BEYOND_UTF8MB3.sub(_escape, ", ".join(parts)), LENGTH)


def _name(key: str) -> str:
    """Return a keyword, with escapes for what a database or a terminal refuses."""
    return key if key.isprintable() else repr(key)[1:-1]


def _escape(match: re.Match[str]) -> str:
    return f"\\U{ord(match[0]):08x}"


def _brief(
    value: Any, place: int | str, sensitive: bool | Collection[int | str]
) -> str:
    if sensitive is True or (sensitive and place in sensitive):
        return MASK
    kind = type(value)
    if kind is int or (kind is str and len(value) <= _repr.maxstring):
        return repr(value)
    return _repr.repr(value)


_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = _repr.maxlong = 60
_repr.maxlevel = 3
