"""Values as text for the admin: times, durations, JSON, tracebacks; all escaped."""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Any

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.timezone import is_aware, localtime

from django_jobs.durations import in_words
from django_jobs.texts import clean

#: Longer texts are shown without their middle.
MOST_BYTES = 200_000
EMPTY = "-"


def moment(value: datetime | None) -> SafeString | str:
    """Return a time to the second in the current zone; UTC is its tooltip."""
    if value is None:
        return EMPTY
    local = localtime(value) if is_aware(value) else value
    return format_html(
        '<time class="jobs-time" datetime="{}" title="{}">{}</time>',
        value.isoformat(),
        value.isoformat(" ", "milliseconds"),
        local.strftime("%Y-%m-%d %H:%M:%S"),
    )


def duration(seconds: float | None) -> str:
    """Return a length of time in words."""
    return EMPTY if seconds is None else in_words(seconds)


def between(start: datetime | None, end: datetime | None) -> str:
    """Return how long it was from one time to another."""
    if start is None or end is None:
        return EMPTY
    return duration(max(0.0, (end - start).total_seconds()))


def badge(state: str) -> SafeString:
    """Return a state as a word with a mark of its own."""
    return format_html(
        '<span class="jobs-state" data-state="{}">{}</span>', *[state] * 2
    )


def block(text: str | None) -> SafeString | str:
    """Return a text with its line breaks and columns kept."""
    if not text:
        return EMPTY
    return format_html(
        '<pre class="jobs-text" tabindex="0">{}</pre>', clean(text, MOST_BYTES)
    )


def brief(text: str) -> SafeString | str:
    """Return a text for a narrow column: two lines of it, all of it as the tooltip."""
    if not text:
        return EMPTY
    return format_html('<span class="jobs-brief" title="{0}">{0}</span>', text)


def dotted(path: str) -> SafeString | str:
    """Return a dotted path for a narrow column: its last part, the others below."""
    if not path:
        return EMPTY
    module, _, name = path.rpartition(".")
    return format_html(
        '<span class="jobs-path" title="{}">{}<small>{}</small></span>',
        path,
        _breakable(name or path),
        _breakable(module),
    )


def _breakable(name: str) -> SafeString:
    """Return a name that may be broken behind its dots and underscores."""
    parts = ((part,) for part in re.split(r"(?<=[._])", name))
    return format_html_join(SafeString("<wbr>"), "{}", parts)


def json_block(text: str | None) -> SafeString | str:
    """Return JSON text with its structure shown; what is none, as it is."""
    return EMPTY if text in (None, "", "[]", "{}") else block(pretty(str(text)))


def pretty(text: str) -> str:
    """Return JSON text over several lines."""
    try:
        value: Any = json.loads(text)
        return json.dumps(value, indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return text


def error_line(exception_class: str, message: str) -> SafeString | str:
    """Return an error as Python would print it, without the path of its class."""
    name = exception_class.rpartition(".")[2]
    first, *rest = message.strip().splitlines() or [""]
    line = f"{name}: {first}" if name and first else name or first
    return brief(f"{line} …" if rest else line)
