"""Values by the rules of Django's tasks: plain JSON, and "Unsupported type" otherwise.

``normalize_json`` takes many times as long as ``json.dumps``, so only what is no plain
JSON already goes through it. Keys become what JSON makes of them, so that a result
shows the same before and after it was stored.
"""

from __future__ import annotations

import json
from typing import Any

from django_jobs.backend.api import normalize_json
from django_jobs.exceptions import InvalidArguments


def plain(value: Any) -> Any:
    """Return the value as JSON has it; TypeError when it cannot."""
    try:
        return _plain(value)
    except RecursionError:
        raise InvalidArguments("a value is nested too deeply, or in itself") from None


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
