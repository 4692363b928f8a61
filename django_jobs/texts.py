"""Text of any origin, made safe for every database and cut to a size."""

from __future__ import annotations

import json


def clean(text: str, max_bytes: int) -> str:
    """Return the text without what a database refuses, its middle cut when too long.

    NUL and lone surrogates become visible escapes; the size is that of UTF-8.
    """
    length = len(text)
    if length > 4 * max_bytes:  # do not escape and encode megabytes to drop them
        text = text[: 2 * max_bytes] + text[-2 * max_bytes :]
    raw = text.replace("\0", "\\x00").encode("utf-8", "backslashreplace")
    if len(raw) <= max_bytes:
        return raw.decode()
    return _without_middle(raw, max_bytes, length - len(text))


def shorten(text: str, length: int) -> str:
    """Return one line of at most so many characters; the end shows that it was cut."""
    return text if len(text) <= length else text[: length - 1] + "…"


def progress_in_words(text: str) -> str:
    """Return the progress that a task has told, JSON, as a line of text."""
    try:
        told = json.loads(text)
        total = "" if told["total"] is None else f" / {told['total']}"
        return f"{told['current']}{total} {told['message'] or ''}".rstrip()
    except (ValueError, TypeError, KeyError):
        return text


def _without_middle(raw: bytes, max_bytes: int, dropped: int) -> str:
    notice = b"\n... %d bytes left out ...\n" % (len(raw) + dropped - max_bytes)
    room = max_bytes - len(notice)
    if room <= 0:
        return raw[:max_bytes].decode(errors="ignore")
    head, tail = raw[: room - room // 2], raw[len(raw) - room // 2 :]
    return (head + b"\0" + tail).decode(errors="ignore").replace("\0", notice.decode())
