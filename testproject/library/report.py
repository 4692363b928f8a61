"""What the tasks found out, read from the rows that they left."""

import textwrap
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, NamedTuple

from django_jobs.models import DeadLetter, Result
from django_jobs.serializers import loads

from . import files
from .models import SourceFile
from .tasks import measure, survey

LABEL, NUMBER = 18, 12
BULLET = "  - "
MOST_FAILURES = 20


class Measured(NamedTuple):
    """What is known of the files that were measured."""

    sums: Counter[str]
    largest: dict[str, Any]
    slowest: tuple[timedelta, str]


def lines(done: int, seconds: float, width: int | None = None) -> Iterator[str]:
    """The report; this run finished ``done`` tasks in ``seconds``.

    With a width in characters, longer lines go on in the next one, between words;
    those of failed files are cut, so that each file keeps to one line.
    """
    for line in _lines(done, seconds):
        yield line if width is None else _fitted(line, width)


def _fitted(line: str, width: int) -> str:
    if not line.startswith(BULLET):
        return _wrapped(line, width)
    return line if len(line) <= width else line[: max(width - 3, 0)] + "..."


def _wrapped(line: str, width: int) -> str:
    # The remarks stand in a column of their own, behind a label and a number.
    indent = " " * (LABEL + NUMBER + 2)
    return textwrap.fill(
        line,
        width,
        subsequent_indent=indent,
        replace_whitespace=False,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _line(label: str, number: object = "", remark: str = "") -> str:
    shown = f"{number:,}" if isinstance(number, int) else str(number)
    return f"{label:{LABEL}}{shown:>{NUMBER}}  {remark}".rstrip()


def _lines(done: int, seconds: float) -> Iterator[str]:
    found = _read()
    failed = DeadLetter.objects.filter(name=measure.name).count()
    catalogued = SourceFile.objects.count()
    yield _line("files", catalogued, "each with a task of its own")
    yield _line("measured", found.sums["files"])
    yield from _failures(failed)
    if rest := catalogued - found.sums["files"] - failed:
        yield _line("the rest", rest, "revoked, or pruned since")
    for unit in ("lines", "tokens", "bytes"):
        yield _line(unit, found.sums[unit])
    if found.largest:
        path = files.shortened(found.largest["path"])
        yield _line("largest", found.largest["bytes"], f"bytes: {path}")
        milliseconds = round(found.slowest[0] / timedelta(milliseconds=1))
        path = files.shortened(found.slowest[1])
        yield _line("slowest", milliseconds, f"ms: {path}")
    yield from _surveys()
    if done:
        yield _line("this run", done, f"tasks in {seconds:.1f} s")
        yield _line("", round(done / seconds), "tasks/s")


def _read() -> Measured:
    sums: Counter[str] = Counter()
    largest: dict[str, Any] = {}
    slowest: tuple[timedelta, str] = (timedelta(0), "")
    results = Result.objects.filter(name=measure.name, state="SUCCESSFUL")
    rows = results.values_list("return_value", "last_attempted_at", "finished_at")
    for text, started_at, finished_at in rows.iterator():
        value = loads(str(text))
        sums.update(files=1, lines=value["lines"], tokens=value["tokens"])
        sums.update(bytes=value["bytes"])
        largest = max(largest, value, key=lambda each: each.get("bytes", 0))
        if started_at and finished_at:
            slowest = max(slowest, (finished_at - started_at, value["path"]))
    return Measured(sums, largest, slowest)


def _failures(count: int) -> Iterator[str]:
    if not count:
        yield _line("failed", 0, "none: every file could be split into tokens")
        return
    yield _line("failed", count, "dead letters:")
    failed = DeadLetter.objects.filter(name=measure.name).order_by("args")
    rows = failed.values_list("args", "exception_class", "message")
    for args, exception_class, message in rows[:MOST_FAILURES]:
        path = files.shortened(str(loads(args)[0]))
        error = exception_class.removeprefix("builtins.")
        told = " ".join(files.shortened(message).replace(f" for {path!r}", "").split())
        yield f"{BULLET}{path}: {error}: {told}"
    if count > MOST_FAILURES:
        yield f"{BULLET}and {count - MOST_FAILURES} more, all of them in the admin"


def _surveys() -> Iterator[str]:
    results = Result.objects.filter(name=survey.name, state="SUCCESSFUL")
    rows = results.order_by("finished_at").values_list("args", "return_value")
    newest = dict(rows)  # a folder is surveyed again when files were added
    kinds: Counter[str] = Counter()
    for text in newest.values():
        kinds.update(loads(str(text)))
    if kinds:
        shown = ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common(5))
        yield _line("folders", len(newest), f"surveyed: {shown}")
        for (root,) in sorted(loads(args) for args in newest):
            yield f"  {root}"
