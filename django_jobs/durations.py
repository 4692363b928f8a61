"""Lengths of time as people write and read them: 10s, 5m, 2h, 7d."""

from __future__ import annotations

import re

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_WRITTEN = re.compile(r"(\d+(?:\.\d+)?)([smhd])")
#: A unit, its seconds, and the unit of what is left below it.
_UNITS = (("d", 86_400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1))


def parse(text: str) -> float:
    """Return the seconds that a text like ``7d`` stands for; ValueError else."""
    match = _WRITTEN.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no length of time; write 10s, 5m, 2h or 7d")
    return float(match[1]) * _SECONDS[match[2]]


def in_words(seconds: float) -> str:
    """Return a length of time in its two largest units."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f}".removesuffix(".0") + " s"
    whole = round(seconds)
    unit, size, small_unit, small_size = next(
        each for each in _UNITS if whole >= each[1]
    )
    small = whole % size // small_size
    words = f"{whole // size} {unit}"
    return f"{words} {small} {small_unit}" if small else words
