"""Log lines that tell an event: ``key=value`` for people, fields for programs."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

#: Fields that are named otherwise in the text, where there is no need to tell them
#: from the attributes of a log record or from the fields of other events.
_IN_TEXT = {
    "error_message": "message",
    "task_id": "id",
    "task_ids": "tasks",
    "worker_name": "name",
}
#: Fields that may hold anything: quoted, so that their end can be seen.
_QUOTED = frozenset({"error_message", "zone"})


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
    ``traceback`` stands below the line. None may be named as an attribute that every
    record has (KeyError).
    """
    if not logger.isEnabledFor(level):
        return
    extra = {"event": event, **fields, **(also or {})}
    traceback = fields.pop("traceback", None)
    words = " ".join([f"event={event}", *map(_placeholder, fields.items())])
    values = [_plain(value) for value in fields.values()]
    if traceback:
        words += "\n%s"
        values.append(traceback)
    logger.log(level, words, *values, exc_info=exc_info, extra=extra, stacklevel=2)


def _placeholder(field: tuple[str, Any]) -> str:
    # Placeholders, not values: what groups messages goes by the unformatted text.
    name, value = field
    sign = "%r" if name in _QUOTED else "%.1f" if isinstance(value, float) else "%s"
    return f"{_IN_TEXT.get(name, name)}={sign}"


def _plain(value: Any) -> Any:
    return ",".join(value) if isinstance(value, list) else value
