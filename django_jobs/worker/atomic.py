"""Atomic tasks: the task's writes and its completion commit together.

The one case in which a child writes an outcome: whoever loses the lease meanwhile
loses the writes with it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from django.db import transaction

from django_jobs import events
from django_jobs.store.errors import is_conflict

logger = logging.getLogger("django_jobs")

#: Runs of the body when the database asks for it (deadlock, serialisation failure).
MOST_RUNS = 3


def run_atomically(
    database: str, work: Callable[[], None], is_committed: Callable[[], bool]
) -> None:
    """Do the work in one transaction; whatever it raises rolls back and comes out.

    A conflict with another transaction is no fault of the task: it is done again,
    but not when the error came from a callback after the commit.
    """
    for run in range(1, MOST_RUNS + 1):
        try:
            with transaction.atomic(using=database, durable=True):
                work()
        except Exception as error:
            if run == MOST_RUNS or is_committed() or not is_conflict(error):
                raise
            events.log(logger, logging.INFO, "atomic_conflict", run=run)
        else:
            return
