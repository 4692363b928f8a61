"""Workers: their leases, and the tasks of those that died."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django_jobs.exceptions import WorkerLost
from django_jobs.records import ErrorRecord, NewWorker, Outcome
from django_jobs.states import Verdict
from django_jobs.store.completing import Completing
from django_jobs.store.dialect import as_id, own_transaction
from django_jobs.store.verdicts import Held, decide

#: Introduce a worker.
REGISTER = """
INSERT INTO {worker} (id, name, host, pid, boot, pid_start, version, {release}, queues,
    processes, threads, coroutines, state, started_at, seen_at, expires_at, running,
    current, commands)
VALUES (%s, %s, %s, %s, %s, %s, %s, '', %s, %s, %s, %s, 'running', {now}, {now},
    {later[%s]}, 0, '[]', '[]')
"""
#: Prolong a lease, unless it is over (``<alive>``).
RENEW = """
UPDATE {worker} SET expires_at = {later[%s]}, seen_at = {now}, state = %s, running = %s
WHERE id = %s AND <alive>
"""
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
SELECT id, lease, crashes, revoke_requested FROM {running_task}
WHERE state = 'RUNNING' AND NOT EXISTS (
    SELECT 1 FROM {worker} w WHERE w.id = {task}.worker_id AND %(alive)s)
ORDER BY id LIMIT %%s {lock_free}
"""
#: Forget dead workers that hold nothing any more.
FORGET_WORKERS = """
DELETE FROM {worker} WHERE NOT EXISTS (
    SELECT 1 FROM {task} t WHERE t.state = 'RUNNING' AND t.worker_id = {worker}.id)
AND id IN
"""
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
        # Where no other can write, a lease may run out while a task of our own keeps
        # the database locked. The row is there as long as nobody took our tasks.
        alive = "state <> 'dead'" if self.has_single_writer else "expires_at > {now}"
        template = RENEW.replace("<alive>", alive)
        return self.run(template, [lease, state, running, self.to_id(worker_id)]) > 0

    @own_transaction
    def sign_off(self, worker_id: str) -> int:
        rows = self.rows(TASKS_OF_WORKER, [self.to_id(worker_id)])
        self._settle(rows, Verdict.RELEASED)
        self.delete_in("worker", [worker_id])
        return len(rows)

    def workers_of_host(self, boot: str) -> list[tuple[str, int, str]]:
        rows = self.rows(WORKERS_OF_HOST, [boot])
        return [(as_id(row[0]), row[1], row[2]) for row in rows]

    @own_transaction
    def expire_workers(self, worker_ids: Iterable[str]) -> None:
        self.run_in(EXPIRE_WORKERS, worker_ids)

    @own_transaction
    def rescue(self, limit: int = 500) -> list[str]:
        dead = [as_id(row[0]) for row in self.rows(DEAD_WORKERS)]
        marks = ", ".join(["%s"] * len(dead))
        alive = f"w.id NOT IN ({marks})" if dead else "TRUE"
        template = ORPHANS % {"alive": alive}
        rows = self.rows(template, [*map(self.to_id, dead), limit])
        self._settle(rows, Verdict.CRASHED, LOST)
        self.run_in(FORGET_WORKERS, dead)
        return [as_id(row[0]) for row in rows]

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
