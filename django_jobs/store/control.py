"""Control and upkeep: revoke, requeue, turns at chores, pruning."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from django.db.utils import IntegrityError

from django_jobs.conf import conf
from django_jobs.failpoints import reach
from django_jobs.store.completing import CARRIED
from django_jobs.store.dialect import as_id, own_transaction
from django_jobs.store.reading import DEAD_LETTERS_AMONG, Reading

#: Lock tasks that are to be revoked.
LOCK_TASKS = "SELECT id, state, revoke_requested FROM {by_id[task]} WHERE id IN"
#: Ask the workers to stop their runs.
REQUEST_REVOKE = """
UPDATE {by_id[task]} SET revoke_requested = TRUE
WHERE {bare_state} = 'RUNNING' AND id IN
"""
#: Copy waiting tasks to the results as revoked.
REVOKE_WAITING = f"""
INSERT INTO {{result}} ({CARRIED}, attempt, crashes, metadata, started_at,
    last_attempted_at, finished_at, state, prune_at)
SELECT {CARRIED}, attempt, crashes, metadata, started_at, last_attempted_at,
    {{now}}, 'REVOKED', {{later[%s]}}
FROM {{by_id[task]}} WHERE {{bare_state}} <> 'RUNNING' AND id IN
"""
IS_WAITING = "{bare_state} <> 'RUNNING'"
#: Copy dead letters to the tasks: fresh budgets, the lease goes on.
REQUEUE = """
INSERT INTO {task} (id, name, queue_name, order_key, args, kwargs, summary, metadata,
    headers, attempt, crashes, max_attempts, lease, time_limit, enqueued_at,
    run_after, state, revoke_requested)
SELECT id, name, queue_name, order_key, args, kwargs, summary, metadata, headers, 0, 0,
    max_attempts, lease, time_limit, enqueued_at, {now}, 'READY', FALSE
FROM {by_id[dead_letter]} WHERE id IN
"""
#: Their attempts stay as history.
CLOSE_ATTEMPTS = """
UPDATE {attempts} SET requeued_at = {now} WHERE requeued_at IS NULL AND task_id IN
"""
DELETE_ATTEMPTS = "DELETE FROM {attempts} WHERE task_id IN"
#: How many of the tasks that are due next are looked through for strays.
NEAREST = 1000
#: The tasks among these that go from worker to worker, since none knew them. What is
#: due already comes to be READY without it ...
STRAYS = f"""
SELECT id, queue_name, name FROM (
    SELECT id, queue_name, name, unknown_since FROM {{task}}
    WHERE state = 'SCHEDULED' AND run_after > {{now}} AND run_after <= {{later[%s]}}
    ORDER BY run_after LIMIT {NEAREST}) nearest
WHERE unknown_since IS NOT NULL
"""
#: ... some of them, locked ...
LOCK_STRAYS = """
SELECT id FROM {by_id[task]}
WHERE {bare_state} = 'SCHEDULED' AND unknown_since IS NOT NULL AND id IN
"""
#: ... which are READY from now on.
ADOPT = """
UPDATE {by_id[task]} SET state = 'READY', run_after = {now}
WHERE {bare_state} = 'SCHEDULED' AND id IN
"""
#: Take a turn at a chore, if the last one is long enough ago.
TAKE_TURN = """
UPDATE {maintenance} SET last_run_at = {now}
WHERE name = %s AND last_run_at <= {later[%s]}
"""
TURN_EXISTS = "SELECT 1 FROM {maintenance} WHERE name = %s"
FIRST_TURN = "INSERT INTO {maintenance} (name, last_run_at) VALUES (%s, {now})"
#: What is past its retention, the oldest first, from either table of the finished.
DUE_FOR_PRUNING = """
SELECT {key} FROM {%(table)s} WHERE prune_at <= {now} ORDER BY prune_at
LIMIT %%s {lock_free}
"""
#: What finished so many seconds ago (negative).
OLDER_THAN = """
SELECT {key} FROM {%(table)s} WHERE finished_at <= {later[%%s]} LIMIT %%s {lock_free}
"""
#: The same of rows that are sought by id, so that no index matches.
IS_DUE = "COALESCE(prune_at, prune_at) <= {now}"
IS_OLDER = "COALESCE(finished_at, finished_at) <= {later[%s]}"


class Control(Reading):
    """Changes to tasks that no worker makes by running them."""

    @own_transaction
    def revoke(self, ids: Sequence[str]) -> dict[str, str]:
        rows = self.rows_in(LOCK_TASKS, ids, end="ORDER BY id {lock}")
        running = [as_id(row[0]) for row in rows if row[1] == "RUNNING"]
        waiting = [as_id(row[0]) for row in rows if row[1] != "RUNNING"]
        # Not those that were asked before: MySQL may count what changes only.
        new = [as_id(row[0]) for row in rows if row[1] == "RUNNING" and not row[2]]
        self.expect(len(new), self.run_in(REQUEST_REVOKE, new))
        copied = self.run_in(REVOKE_WAITING, waiting, [conf().RESULT_RETENTION])
        deleted = self.delete_in("task", waiting, IS_WAITING)
        self.expect(len(waiting), copied, deleted)
        live = dict.fromkeys(running, "requested") | dict.fromkeys(waiting, "revoked")
        others = self.finished([each for each in ids if each not in live])
        return live | dict.fromkeys(others, "finished")

    @own_transaction
    def requeue(self, ids: Sequence[str]) -> list[str]:
        rows = self.rows_in(DEAD_LETTERS_AMONG, ids, end="ORDER BY id {lock}")
        found = [as_id(row[0]) for row in rows]
        copied = self.run_in(REQUEUE, found)
        self.run_in(CLOSE_ATTEMPTS, found)
        self.expect(len(found), copied, self.delete_in("dead_letter", found))
        return found

    def adopt(
        self, within: float, is_ours: Callable[[str, str], bool], limit: int = 500
    ) -> int:
        strays = self.rows(STRAYS, [within])
        kinds = {kind for kind in {row[1:] for row in strays} if is_ours(*kind)}
        ours = [as_id(row[0]) for row in strays if row[1:] in kinds]
        return self._adopt(ours[:limit]) if ours else 0

    @own_transaction
    def _adopt(self, ids: Sequence[str]) -> int:
        rows = self.rows_in(LOCK_STRAYS, ids, end="ORDER BY id {lock_free}")
        return self.run_in(ADOPT, [as_id(row[0]) for row in rows])

    def claim_chore(self, name: str, every: float) -> bool:
        if self._take_turn(name, every):
            return True
        if self.rows(TURN_EXISTS, [name]):
            return False
        try:
            return self._take_first_turn(name)
        except IntegrityError:  # somebody was faster
            return False

    @own_transaction
    def _take_turn(self, name: str, every: float) -> bool:
        return self.run(TAKE_TURN, [name, -every]) > 0

    @own_transaction
    def _take_first_turn(self, name: str) -> bool:
        return self.run(FIRST_TURN, [name]) > 0

    @own_transaction
    def prune(self, limit: int = 1000, *, older_than: float | None = None) -> int:
        count = self._prune("result", limit, older_than)
        if count < limit:
            rest = limit - count
            count += self._prune("dead_letter", rest, older_than)
        return count

    def _prune(self, table: str, limit: int, older_than: float | None) -> int:
        if older_than is None:
            due, guard, age = DUE_FOR_PRUNING, IS_DUE, []
        else:
            due, guard, age = OLDER_THAN, IS_OLDER, [-older_than]
        rows = self.rows(due % {"table": table}, [*age, limit])
        keys = [row[0] for row in rows]
        self._delete_attempts(table, keys)
        reach("prune.mid")
        self.expect(len(keys), self._delete_finished(table, keys, guard, age))
        return len(keys)

    def _delete_attempts(self, table: str, keys: Sequence[Any]) -> None:
        self.run_in(DELETE_ATTEMPTS, map(as_id, keys))

    def _delete_finished(
        self, table: str, keys: Sequence[Any], guard: str, age: Sequence[float]
    ) -> int:
        return self.delete_in(table, map(as_id, keys), guard, age)
