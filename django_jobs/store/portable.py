"""The store on any database: the parts together, and the cycle of a worker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django_jobs.failpoints import reach
from django_jobs.records import ClaimedTask, Cycle, Demand, Outcome
from django_jobs.store.control import Control
from django_jobs.store.dialect import as_id, own_transaction
from django_jobs.store.errors import RowsChanged
from django_jobs.store.inserting import Inserting
from django_jobs.store.listing import Listing
from django_jobs.store.workers import Workers

#: What a worker gets of a task, as the row is after the claim ...
_AS_IS = (
    "id, lease, attempt, crashes, max_attempts, name, queue_name, order_key, args, "
    "kwargs, metadata, headers, time_limit, "
)
CLAIMED = _AS_IS + "CASE WHEN expires <= {now} THEN 1 ELSE 0 END"
#: ... and the columns that this is made of.
CLAIMED_COLUMNS = _AS_IS + "expires"
#: Names of the queues that have READY tasks: one look into the index for each,
#: however many tasks there are.
READY_QUEUES = """
WITH RECURSIVE queues (name) AS (
    SELECT MIN(queue_name) FROM {task} WHERE state = 'READY'
    UNION ALL
    SELECT (SELECT MIN(t.queue_name) FROM {task} t
            WHERE t.state = 'READY' AND t.queue_name > q.name)
    FROM queues q WHERE q.name IS NOT NULL)
SELECT name FROM queues WHERE name IS NOT NULL
"""
#: Those of the given tasks that there are.
BY_ID = "SELECT id FROM {by_id[task]} WHERE id IN"
#: Write what a running task says of itself.
SAVE_METADATA = """
UPDATE {task} SET metadata = COALESCE(%s, metadata), progress = COALESCE(%s, progress)
WHERE id = %s AND lease = %s AND worker_id = %s AND state = 'RUNNING'
"""
IS_HELD = """
SELECT 1 FROM {task}
WHERE id = %s AND lease = %s AND worker_id = %s AND state = 'RUNNING'
"""


class PortableStore(Inserting, Workers, Control, Listing):
    """All of the contract but what every vendor does best in its own way."""

    def cycle(
        self,
        worker_id: str,
        outcomes: Sequence[Outcome],
        demand: Demand | None,
        *,
        again: bool = False,
    ) -> Cycle:
        written, older = _newest([each for each in outcomes if not each.recorded])
        locked = self._locked([each.id for each in written]) if again else set()
        if locked:
            written = [each for each in written if each.id not in locked]
        try:
            claimed, stale, _ = self._cycle(worker_id, written, demand)
        except Exception as error:
            if not written or not self._is_of_one(error, written):
                raise
            stale = self._complete_each(worker_id, written)
            claimed = self._cycle(worker_id, [], demand).claimed
        if written:
            reach("complete.after_commit")
        if claimed:
            reach("claim.after_commit")
        return Cycle(claimed, older + stale, tuple(sorted(locked)))

    @own_transaction
    def _locked(self, ids: Sequence[str]) -> set[str]:
        """Return the ids of the tasks whose rows somebody else has locked."""
        there = {as_id(row[0]) for row in self.rows_in(BY_ID, ids)}
        free = self.rows_in(BY_ID, ids, end="ORDER BY id {lock_free}")
        return there - {as_id(row[0]) for row in free}

    def _is_of_one(self, error: Exception, outcomes: Sequence[Outcome]) -> bool:
        """Tell whether one outcome alone may have made the error."""
        return isinstance(error, RowsChanged) or self.refuses(error, outcomes)

    @own_transaction
    def _cycle(
        self, worker_id: str, outcomes: Sequence[Outcome], demand: Demand | None
    ) -> Cycle:
        stale, claimed = list[str](), list[ClaimedTask]()
        if outcomes:
            reach("complete.before")
            stale = self._complete(worker_id, outcomes)
            reach("complete.before_commit")
        if demand and demand.limit > 0:
            reach("claim.before")
            claimed = self._claim(worker_id, demand)
            reach("claim.after_update")
        return Cycle(claimed, stale)

    def _claim(self, worker_id: str, demand: Demand) -> list[ClaimedTask]:
        """Claim tasks in the open transaction; return them in claim order."""
        raise NotImplementedError

    def queues_of(self, demand: Demand) -> list[str]:
        """Return the names of the queues to claim from, in their order."""
        if demand.queues:
            return list(dict.fromkeys(demand.queues))
        return [name for name in self.ready_queues() if name not in demand.exclude]

    def ready_queues(self) -> list[str]:
        """Return the names of the queues that have READY tasks, sorted."""
        return [row[0] for row in self.hot_rows(READY_QUEUES)]

    @own_transaction
    def save_metadata(
        self,
        worker_id: str,
        task_id: str,
        lease: int,
        *,
        metadata: str | None = None,
        progress: str | None = None,
    ) -> bool:
        held = [self.to_id(task_id), lease, self.to_id(worker_id)]
        if self.run(SAVE_METADATA, [metadata, progress, *held]):
            return True
        # MySQL may count what changes only: the row may be as it shall be.
        return bool(self.rows(IS_HELD, held))


def _newest(outcomes: list[Outcome]) -> tuple[list[Outcome], list[str]]:
    """Return the newest outcome of each task, and the ids of those that are older.

    A lease never comes back, so that of several only the last one can hold.
    """
    newest = {outcome.id: outcome for outcome in outcomes}
    if len(newest) == len(outcomes):
        return outcomes, []
    for outcome in outcomes:
        if outcome.lease > newest[outcome.id].lease:
            newest[outcome.id] = outcome
    older = [each.id for each in outcomes if each is not newest[each.id]]
    return list(newest.values()), older


def as_claimed(row: Sequence[Any]) -> ClaimedTask:
    """Return a claimed task from a row of ``CLAIMED``."""
    return ClaimedTask._make(
        (as_id(row[0]), *row[1:7], -row[7], *row[8:13], bool(row[13]))
    )
