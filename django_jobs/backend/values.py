"""Values by the rules of Django's tasks: plain JSON, and "Unsupported type" otherwise.

``normalize_json`` takes many times as long as ``json.dumps``, so only what is no plain
JSON already goes through it. Keys become what JSON makes of them, so that a result
shows the same before and after it was stored.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import date, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from django_jobs.backend.api import normalize_json
from django_jobs.exceptions import InvalidArguments


def plain(value: Any) -> Any:
    """Return the value as JSON has it; TypeError when it cannot."""
    try:
        return _plain(value)
    except RecursionError:
        raise InvalidArguments("a value is nested too deeply, or in itself") from None


def plain_arguments(name: str, path: str, value: Any) -> Any:
    """Return arguments of a task as ``plain`` does; the error names task and path."""
    try:
        return plain(value)
    except (TypeError, ValueError) as error:
        if type(error) not in (TypeError, ValueError):
            raise  # is ours, or takes other arguments
        where, bad = _find_bad(path, value)
        words = f"task {name}: {where}: {error}"
        if isinstance(bad, _OURS_ALONE):
            words += _HINT
        raise type(error)(words) from None


def _find_bad(path: str, value: Any) -> tuple[str, Any]:
    """Return the path to what ``plain`` refuses, and the value there."""
    items: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, (list, tuple)):
        items = enumerate(value)
    elif isinstance(value, dict):
        items = value.items()
    for step, item in items:
        try:
            _plain(item)
        except (TypeError, ValueError):
            return _find_bad(f"{path}[{step!r:.60}]", item)
    return path, value


#: What ``@task`` of ours takes and Django's contract does not.
_OURS_ALONE = (date, time, timedelta, Decimal, UUID)
_HINT = "; pass text, or declare the task with @task of django_jobs, which takes it"


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (str, int, float)):
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {_key(key): _plain(item) for key, item in value.items()}
    return _plain(normalize_json(value))


def _key(key: Any) -> str:
    if isinstance(key, str):
        return key
    if key is None or isinstance(key, (int, float)):
        return json.dumps(key)
    return str(normalize_json(key))
