"""The attempts of one task, for its page."""

from __future__ import annotations

from typing import NamedTuple
from uuid import UUID

from django.utils.safestring import SafeString

from django_jobs.admin.rendering import badge, between, block, moment
from django_jobs.models import Attempt
from django_jobs.store import get_store

#: So many of the newest attempts are shown with the task; the others in their list.
MOST_SHOWN = 20


class Entry(NamedTuple):
    """An attempt that did not succeed, ready to be shown."""

    number: int
    verdict: SafeString
    started: SafeString | str
    took: str
    worker: str
    error: str
    message: str
    traceback: SafeString | str
    log: SafeString | str
    requeued: SafeString | str


class History(NamedTuple):
    """The newest attempts of a task."""

    entries: list[Entry]
    has_more: bool


def of_task(task_id: UUID) -> History:
    """Return the newest attempts with one query."""
    attempts = Attempt.objects.using(get_store().alias).filter(task_id=task_id)
    found = list(attempts.order_by("-id")[: MOST_SHOWN + 1])
    entries = [_entry(each) for each in found[:MOST_SHOWN]]
    return History(entries, len(found) > MOST_SHOWN)


def _entry(attempt: Attempt) -> Entry:
    return Entry(
        number=attempt.number,
        verdict=badge(attempt.verdict),
        started=moment(attempt.started_at),
        took=between(attempt.started_at, attempt.finished_at),
        worker=attempt.worker_name or str(attempt.worker_id or "-"),
        error=attempt.exception_class,
        message=attempt.message,
        traceback=block(attempt.traceback) if attempt.traceback else "",
        log=block(attempt.log) if attempt.log else "",
        requeued=moment(attempt.requeued_at) if attempt.requeued_at else "",
    )
