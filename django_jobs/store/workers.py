"""Workers: their leases, and the tasks of those that died."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from django_jobs.exceptions import WorkerLost
from django_jobs.failpoints import reach
from django_jobs.records import ErrorRecord, NewWorker, Outcome
from django_jobs.states import Verdict
from django_jobs.store.completing import Completing
from django_jobs.store.dialect import as_id, as_int, as_text, own_transaction
from django_jobs.store.verdicts import Held, decide

#: Introduce a worker.
REGISTER = """
INSERT INTO {worker} (id, name, host, pid, boot, pid_start, version, {release}, queues,
    processes, threads, coroutines, state, started_at, seen_at, expires_at, running,
    current, commands)
VALUES (%s, %s, %s, %s, %s, %s, %s, '', %s, %s, %s, %s, 'running', {now}, {now},
    {later[%s]}, 0, '[]', '[]')
"""
#: Prolong a lease, unless it is over.
RENEW = """
UPDATE {worker} SET expires_at = {later[%s]}, seen_at = {now}, state = %s, running = %s
WHERE id = %s AND {alive}
"""
IS_ALIVE = "SELECT 1 FROM {worker} WHERE id = %s AND {alive}"
#: The tasks that a worker has.
TASKS_OF_WORKER = """
SELECT id, lease, crashes, revoke_requested FROM {running_task}
WHERE state = 'RUNNING' AND worker_id = %s ORDER BY id {lock}
"""
#: The same without a lock: who asks knows whether others may change them.
HELD = "SELECT id, lease FROM {task} WHERE state = 'RUNNING' AND worker_id = %s"
#: The living workers of a host since its last boot.
WORKERS_OF_HOST = """
SELECT id, pid, pid_start FROM {worker} WHERE boot = %s AND expires_at > {now}
"""
#: No kernel gives larger numbers.
MOST_PID = 2**31
#: End leases now.
EXPIRE_WORKERS = """
UPDATE {worker} SET expires_at = {now}, state = 'dead'
WHERE expires_at > {now} AND id IN
"""
#: Lock the workers whose leases are over: from here on none of them is renewed.
DEAD_WORKERS = """
SELECT id FROM {worker} WHERE expires_at <= {now} ORDER BY id {lock_free}
"""
#: Tasks whose worker is not in the table, or is a dead one that we hold locked.
ORPHANS = """
SELECT id, lease, crashes, revoke_requested, worker_id FROM {running_task}
WHERE state = 'RUNNING' AND NOT EXISTS (
    SELECT 1 FROM {worker} w WHERE w.id = {task}.worker_id AND %(alive)s)
ORDER BY id LIMIT %%s {lock_free}
"""
WORKERS_AMONG = "SELECT id FROM {worker} WHERE id IN"
#: Forget dead workers that hold nothing any more ...
FORGET_WORKERS = """
DELETE FROM {worker} WHERE expires_at <= {now} AND NOT EXISTS (
    SELECT 1 FROM {task} t WHERE t.state = 'RUNNING' AND t.worker_id = {worker}.id)
AND id IN
"""
#: ... and keep the others from coming back: some of their tasks are taken.
BURY_WORKERS = "UPDATE {worker} SET state = 'dead' WHERE expires_at <= {now} AND id IN"
#: Running tasks that shall stop.
REVOKE_REQUESTS = """
SELECT id FROM {task} WHERE state = 'RUNNING' AND worker_id = %s AND revoke_requested
"""
LOST = ErrorRecord(
    f"{WorkerLost.__module__}.{WorkerLost.__qualname__}",
    "The worker stopped giving signs of life while it had this task.",
    "",
    "",
)


class Workers(Completing):
    """The rows of the workers, and who takes over when one is gone."""

    @own_transaction
    def register(self, worker: NewWorker, lease: float) -> None:
        # A registration whose answer was lost is repeated.
        self.delete_in("worker", [worker.id])
        self.run(REGISTER, [self.to_id(worker.id), *worker[1:], lease])

    @own_transaction
    def renew(
        self, worker_id: str, lease: float, *, state: str = "running", running: int = 0
    ) -> bool:
        return self.run(RENEW, [lease, state, running, self.to_id(worker_id)]) > 0

    def is_alive(self, worker_id: str) -> bool:
        return bool(self.rows(IS_ALIVE, [self.to_id(worker_id)]))

    @own_transaction
    def sign_off(self, worker_id: str) -> int:
        rows = self.rows(TASKS_OF_WORKER, [self.to_id(worker_id)])
        self._settle(rows, Verdict.RELEASED)
        self.delete_in("worker", [worker_id])
        return len(rows)

    def workers_of_host(self, boot: str) -> list[tuple[str, int, str]]:
        rows = self.rows(WORKERS_OF_HOST, [boot])
        return [
            (as_id(row[0]), row[1], as_text(row[2]))
            for row in rows
            if 0 < as_int(row[1]) < MOST_PID
        ]

    @own_transaction
    def expire_workers(self, worker_ids: Iterable[str]) -> None:
        self.run_in(EXPIRE_WORKERS, worker_ids)

    @own_transaction
    def rescue(self, limit: int = 500) -> list[str]:
        dead = [as_id(row[0]) for row in self.rows(DEAD_WORKERS)]
        marks = ", ".join(["%s"] * len(dead))
        alive = f"w.id NOT IN ({marks})" if dead else "TRUE"
        template = ORPHANS % {"alive": alive}
        found = self.rows(template, [*map(self.to_id, dead), limit])
        living = self._living(found) - set(dead)
        rows = [row for row in found if row[4] is None or as_id(row[4]) not in living]
        self._settle(rows, Verdict.CRASHED, LOST)
        if rows:
            reach("rescue.mid")
        if self.run_in(FORGET_WORKERS, dead) < len(dead):
            self.run_in(BURY_WORKERS, dead)
        return [as_id(row[0]) for row in rows]

    def _living(self, orphans: Sequence[Any]) -> set[str]:
        """Return whose locked tasks these are, of the workers that there are now.

        A task may have been rescued and claimed anew while our statement was on its
        way to the row: by a worker that was not there when the statement began.
        """
        owners = {as_id(row[4]) for row in orphans if row[4] is not None}
        return {as_id(row[0]) for row in self.rows_in(WORKERS_AMONG, owners)}

    def held(self, worker_id: str) -> list[tuple[str, int]]:
        rows = self.rows(HELD, [self.to_id(worker_id)])
        return [(as_id(row[0]), row[1]) for row in rows]

    def revoke_requests(self, worker_id: str) -> list[str]:
        rows = self.rows(REVOKE_REQUESTS, [self.to_id(worker_id)])
        return [as_id(row[0]) for row in rows]

    def _settle(
        self, rows: Iterable[Any], verdict: Verdict, error: ErrorRecord | None = None
    ) -> None:
        moves = []
        for row in rows:
            held = Held(as_id(row[0]), row[1], row[2], bool(row[3]), False)
            outcome = Outcome(held.id, held.lease, verdict, error=error)
            moves.append(decide(held, outcome))
        self._write(moves)
