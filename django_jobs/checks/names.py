"""Settings that were meant for us and are read by nobody."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Warning

from django_jobs.conf import Conf

_NAME = "DJANGO_JOBS"
#: How like ours a name must be to be taken for it: 1 is the same.
_LIKENESS = 0.9


def check_names() -> Iterator[CheckMessage]:
    """Find names like ``DJANGO_JOB``, and keys that are settings of their own."""
    for name in dir(settings):
        if name != _NAME and name.isupper() and (hint := _hint_for(name)):
            yield Warning(
                f"The setting {name} is not read by django_jobs.",
                hint=hint,
                id="django_jobs.W008",
            )


def _hint_for(name: str) -> str:
    """Return what to write instead, empty for a name that is not meant for us."""
    key = name.removeprefix(f"{_NAME}_")
    if key != name:
        return _hint_for_key(key, getattr(settings, name, None))
    likeness = difflib.SequenceMatcher(None, name, _NAME).ratio()
    return f"Did you mean {_NAME}?" if likeness > _LIKENESS else ""


def _hint_for_key(key: str, value: Any) -> str:
    near = difflib.get_close_matches(key, [field.name for field in fields(Conf)], 1)
    if near:
        return f"Did you mean {_NAME} = {{{near[0]!r}: ...}}?"
    # Others may have settings that begin like ours; a dict looks like all of them.
    return f"Did you mean {_NAME}?" if isinstance(value, dict) else ""
