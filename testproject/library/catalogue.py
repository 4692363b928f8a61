"""From files to tasks, exactly once each, and how far the tasks are."""

from collections.abc import Sequence
from uuid import UUID

from django.db import transaction

from django_jobs import enqueue_many
from django_jobs.models import DeadLetter, Result, Task

from .models import SourceFile
from .tasks import measure, survey

NAMES = (measure.name, survey.name)


def add(paths: Sequence[str], roots: Sequence[str]) -> int:
    """Hand the files that are not in the catalogue to the queue; return how many.

    One transaction holds the catalogue and the tasks: interrupted anywhere, either
    both are there or neither is, and calling this again adds only what is missing.
    """
    with transaction.atomic():
        known = set(SourceFile.objects.values_list("path", flat=True))
        new = [path for path in paths if path not in known]
        if not new:
            return 0
        enqueue_many([survey.s(root) for root in roots])
        tasks = enqueue_many([measure.s(path) for path in new])
        SourceFile.objects.bulk_create(
            SourceFile(path=path, task_id=UUID(str(task.id)))
            for path, task in zip(new, tasks, strict=True)
        )
    return len(new)


def to_do() -> int:
    """How many of the demo's tasks are not finished."""
    return Task.objects.filter(name__in=NAMES).count()


def finished() -> int:
    """How many are."""
    rows = (model.objects.filter(name__in=NAMES) for model in (Result, DeadLetter))
    return sum(each.count() for each in rows)


def clear() -> None:
    """Forget the files and all that the queue knows of them."""
    with transaction.atomic():
        for model in (Task, Result, DeadLetter):
            model.objects.filter(name__in=NAMES).delete()
        SourceFile.objects.all().delete()
