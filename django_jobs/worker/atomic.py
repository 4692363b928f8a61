"""Atomic tasks: the task's writes and its completion commit together.

The one case in which a child writes an outcome: whoever loses the lease meanwhile
loses the writes with it.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from contextlib import suppress

from django.db import connections, transaction

from django_jobs import events
from django_jobs.context import TaskContext
from django_jobs.records import ClaimedTask
from django_jobs.states import State
from django_jobs.store import Store, get_store
from django_jobs.store.connecting import close_unless_whole
from django_jobs.store.errors import is_conflict

logger = logging.getLogger("django_jobs")

#: Runs of the body when the database asks for it (deadlock, serialisation failure).
MOST_RUNS = 3
#: How long to ask what became of a COMMIT, and the wait after the first time asked,
#: in seconds; so many looks that find nothing are believed.
ASK_SECONDS = 5.0
FIRST_WAIT = 0.05
LOOKS = 2


def run_atomically(
    database: str, work: Callable[[], None], is_committed: Callable[[], bool]
) -> None:
    """Do the work in one transaction; whatever it raises rolls back and comes out.

    A conflict with another transaction is no fault of the task: it is done again,
    but not when the error came from a callback after the commit. Who waited too long
    for a lock (or asked not to wait at all) gets the error, as on every database.
    """
    for run in range(1, MOST_RUNS + 1):
        try:
            with transaction.atomic(using=database, durable=True):
                work()
        except Exception as error:
            # Else the transaction is over, and nobody knows how.
            is_whole = close_unless_whole(connections[database])
            if run == MOST_RUNS or is_committed() or not is_whole:
                raise
            if not is_conflict(error):
                raise
            events.log(logger, logging.INFO, "atomic_conflict", run=run)
        else:
            return


def has_committed(database: str, context: TaskContext) -> bool:
    """Tell whether a COMMIT that failed has committed: only its answer was lost.

    Called while the error is being handled, of a transaction that ended the task.
    """
    if connections[database].in_atomic_block:
        return False  # that of a test case, which no COMMIT has ended
    task = context.claimed
    answer = was_committed(get_store(database), context.worker_id, task)
    if answer is not False:
        # What was hooked to on_commit was not called, as after any such error.
        events.log(
            logger,
            logging.WARNING,
            "commit_answer_lost" if answer else "commit_unknown",
            exc_info=True,
            task=task.name,
            task_id=task.id,
        )
    return bool(answer)


def was_committed(store: Store, worker_id: str, task: ClaimedTask) -> bool | None:
    """Ask the row what became of a COMMIT without an answer; None when nobody says.

    The server may still be at it: so a row that is as it was is looked at again. What
    comes later than that is settled by the fence, which waits for it.
    """
    until, wait, looks = time.monotonic() + ASK_SECONDS, FIRST_WAIT, 0
    while looks < LOOKS and time.monotonic() < until:
        with suppress(Exception):
            # Whatever state the connection is in, a new one is in a better one.
            connections[store.alias].close()
            if _is_done(store, worker_id, task):
                return True
            looks += 1
        time.sleep(wait * random.uniform(0.5, 1.5))  # noqa: S311 - jitter
        wait *= 2
    return False if looks == LOOKS else None


def _is_done(store: Store, worker_id: str, task: ClaimedTask) -> bool:
    record = store.fetch(task.id)
    if record is None:
        return True  # its result is kept for no time at all
    is_ours = record.attempt == task.attempt and worker_id in record.worker_ids[-1:]
    return is_ours and record.state == State.SUCCESSFUL
