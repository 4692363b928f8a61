"""What the tasks found out, read from the rows that they left."""

from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from django.db.models import Count

from django_jobs.models import DeadLetter, Result
from django_jobs.serializers import loads

from .models import SourceFile
from .tasks import measure, survey


def lines(done: int, seconds: float) -> Iterator[str]:
    """The report; this run finished ``done`` tasks in ``seconds``."""
    sums: Counter[str] = Counter()
    largest: dict[str, Any] = {}
    slowest: tuple[timedelta, str] = (timedelta(0), "")
    results = Result.objects.filter(name=measure.name)
    rows = results.values_list("return_value", "started_at", "finished_at")
    for text, started_at, finished_at in rows.iterator():
        value = loads(str(text))
        sums.update(files=1, lines=value["lines"], tokens=value["tokens"])
        sums.update(bytes=value["bytes"])
        largest = max(largest, value, key=lambda each: each.get("bytes", 0))
        if started_at and finished_at:
            slowest = max(slowest, (finished_at - started_at, value["path"]))

    yield f"{'in the catalogue':18}{SourceFile.objects.count():>12,}"
    yield f"{'files measured':18}{sums['files']:>12,}"
    for unit in ("lines", "tokens", "bytes"):
        yield f"{unit:18}{sums[unit]:>12,}"
    if largest:
        yield f"{'largest':18}{largest['bytes']:>12,}  {largest['path']}"
        milliseconds = slowest[0] / timedelta(milliseconds=1)
        yield f"{'slowest':18}{milliseconds:>9,.0f} ms  {slowest[1]}"
    yield from _failures()
    yield from _surveys()
    if done:
        yield f"{'this run':18}{done:>12,}  tasks in {seconds:.1f} s"
        yield f"{'':18}{done / seconds:>12,.0f}  tasks/s"


def _failures() -> Iterator[str]:
    failed = DeadLetter.objects.filter(name=measure.name)
    yield f"{'failed':18}{failed.count():>12,}  (dead letters)"
    classes = failed.values_list("exception_class").annotate(Count("id"))
    for exception_class, count in classes.order_by("exception_class"):
        yield f"{'':18}{count:>12,}  {exception_class}"
        messages = failed.filter(exception_class=exception_class)
        for message in messages.values_list("message", flat=True)[:3]:
            yield f"{'':32}{message[:140]}"


def _surveys() -> Iterator[str]:
    kinds: Counter[str] = Counter()
    results = Result.objects.filter(name=survey.name)
    for text in results.values_list("return_value", flat=True):
        kinds.update(loads(str(text)))
    if kinds:
        shown = ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common(5))
        yield f"{'files of all kinds':18}{'':>12}  {shown}"
