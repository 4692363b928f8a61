"""Log lines that tell an event: ``key=value`` for people, fields for programs.

The text is what is known as logfmt: a value is bare, or a quoted string as in JSON.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback as tracebacks
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

#: Fields that are named otherwise in the text, where there is no need to tell them
#: from the attributes of a log record or from the fields of other events.
_IN_TEXT = {
    "error_message": "message",
    "task_id": "id",
    "task_ids": "tasks",
    "worker_name": "name",
}
#: With one of these, or without any character, a value cannot stand bare.
_NEED_QUOTES = frozenset(" \"'=\\")
#: So many ids are named in a line.
MOST_IDS = 10


def log(
    logger: logging.Logger,
    level: int,
    event: str,
    *,
    also: Mapping[str, Any] | None = None,
    exc_info: bool = False,
    **fields: Any,
) -> None:
    """Log an event; its text is ``event=... key=value``, in the order of ``fields``.

    The record carries ``event`` and the fields as attributes, for formatters and
    handlers that keep them apart. Those of ``also`` are not in the text. A field
    ``traceback`` stands below the line. No value can begin a line, or move the cursor
    of a terminal. None may be named as an attribute that every record has.

    It never raises: a handler of the project that does must not end what tells of
    itself. The line is on standard error then, with the reason below.
    """
    if not logger.isEnabledFor(level):
        return
    extra = {"event": event, **fields, **(also or {})}
    traceback = fields.pop("traceback", None)
    words = " ".join([f"event={event}", *map(_placeholder, fields.items())])
    values = [_plain(value) for value in fields.values()]
    if traceback:
        words += "\n%s"
        values.append(_escaped(traceback, keep="\n\t"))
    try:
        logger.log(level, words, *values, exc_info=exc_info, extra=extra, stacklevel=2)
    except Exception:
        _say_plainly(words % tuple(values))


def _say_plainly(text: str) -> None:
    reason = tracebacks.format_exc()
    # Past what the project, or a task, has put in the place of the stream.
    if (stream := sys.__stderr__) is not None:
        with suppress(Exception):
            print(f"{text}\n{reason}", end="", file=stream, flush=True)


def _placeholder(field: tuple[str, Any]) -> str:
    # Placeholders, not values: what groups messages goes by the unformatted text.
    name, value = field
    sign = "%.1f" if isinstance(value, float) else "%s"
    return f"{_IN_TEXT.get(name, name)}={sign}"


def _plain(value: Any) -> Any:
    """Return a number as it is, and the text of all else so that its end is seen."""
    if isinstance(value, (int, float)):
        return value
    text = ",".join(value) if isinstance(value, list) else str(value)
    if text and text.isprintable() and _NEED_QUOTES.isdisjoint(text):
        return text
    text = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{_escaped(text)}"'


def _escaped(text: str, keep: str = "") -> str:
    """Return the text with what cannot be printed in the escapes of JSON."""
    return "".join(
        each if each.isprintable() or each in keep else json.dumps(each)[1:-1]
        for each in text
    )
