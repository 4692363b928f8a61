"""After an answer that was lost: what is ours in the database, and what was written."""

from __future__ import annotations

import logging

from django_jobs import events
from django_jobs.records import Outcome
from django_jobs.states import Verdict
from django_jobs.store import Store

logger = logging.getLogger("django_jobs")


def release_unknown(
    store: Store, worker_id: str, held: set[str], stale: list[str]
) -> bool:
    """Give back what is not held; True when ``stale`` is what was written before.

    From a worker that is alive nobody has taken tasks: where it has one no more, it
    has said itself what became of that.
    """
    lost = [
        Outcome(task_id, lease, Verdict.RELEASED)
        for task_id, lease in store.held(worker_id)
        if task_id not in held
    ]
    if lost:
        events.log(logger, logging.WARNING, "claims_reconciled", tasks=len(lost))
        store.cycle(worker_id, lost, None)
    return bool(stale) and store.is_alive(worker_id)


def say_stale(task_ids: list[str], *, is_written: bool = False) -> None:
    if is_written:
        events.log(logger, logging.INFO, "outcomes_reconciled", task_ids=task_ids)
    else:
        events.log(logger, logging.WARNING, "stale_outcomes", task_ids=task_ids)
