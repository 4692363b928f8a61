"""Locks of sessions of PostgreSQL, by which a worker that is gone is noticed sooner.

A worker holds one on a connection of its own. That the lock is not held is never enough
to take it for dead: the worker must also have been silent for the grace that it named
itself, before the end of which it has stopped what it runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from django.db import Error

from django_jobs.store.dialect import Dialect, own_transaction
from django_jobs.store.errors import is_not_migrated

T = TypeVar("T")

#: The number that stands for a worker.
KEY = "hashtextextended('django_jobs worker ' || ({id})::text, 0)"
#: Have the server notice within seven seconds that the host of this session is gone.
KEEPALIVE = """
SELECT set_config('tcp_keepalives_idle', '3', false),
       set_config('tcp_keepalives_interval', '2', false),
       set_config('tcp_keepalives_count', '2', false),
       set_config('tcp_user_timeout', '7000', false)
"""
#: Does the server itself answer? A pooler would give the session to somebody else.
SESSION = "SELECT pg_backend_pid()"
#: Let go of the lock of a former self, and take one.
RELEASE = "SELECT pg_advisory_unlock_all()"
TAKE = f"SELECT pg_try_advisory_lock({KEY.replace('{id}', '%s')})"
#: Is the lock of a worker held?
HELD = f"""
EXISTS (SELECT 1 FROM pg_locks l
    WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND l.granted
    AND l.database = (SELECT d.oid FROM pg_database d
                      WHERE d.datname = current_database())
    AND (l.classid::bigint << 32) | l.objid::bigint = {KEY})
"""
#: Note that a lock is held, where those look who may rescue, and for which grace. It
#: means nothing on another server, or on this one after its next start.
NOTE = f"""
UPDATE {{worker}} SET lock_server = pg_postmaster_start_time(), lock_grace = %s
WHERE id = %s AND {HELD.replace("{id}", "{worker}.id")}
"""
#: Workers that had a lock and have been silent for too long.
SILENT = """
expires_at > {now} AND lock_server = pg_postmaster_start_time()
AND seen_at <= {now} - lock_grace * interval '1 second'
"""
ANY_SILENT = f"SELECT 1 FROM {{worker}} WHERE {SILENT} LIMIT 1"
#: End the leases of those among them whose locks are not held.
EXPIRE_UNLOCKED = f"""
UPDATE {{worker}} SET expires_at = {{now}}, state = 'dead'
WHERE {SILENT} AND NOT {HELD.replace("{id}", "{worker}.id")} RETURNING id::text
"""


class Locks(Dialect):
    """Who holds a lock, and who lost it."""

    def note_lock(self, worker_id: str, grace: float) -> bool:
        return self._if_migrated(lambda: self._note_lock(worker_id, grace), False)

    @own_transaction
    def _note_lock(self, worker_id: str, grace: float) -> bool:
        return self.run(NOTE, [grace, self.to_id(worker_id)]) > 0

    def expire_unlocked(self) -> list[str]:
        # As long as nobody is silent, no look at all the locks of the server is needed.
        if self._if_migrated(lambda: self.rows(ANY_SILENT), []):
            return self._expire_unlocked()
        return []

    def _if_migrated(self, work: Callable[[], T], otherwise: T) -> T:
        """Do without what is faster, too, while the columns for it are not there."""
        try:
            return work()
        except Error as error:
            if not is_not_migrated(error):
                raise
            return otherwise

    @own_transaction
    def _expire_unlocked(self) -> list[str]:
        return [row[0] for row in self.rows(EXPIRE_UNLOCKED)]


def take_lock(connection: Any, worker_id: str) -> bool:
    """Take the lock of a worker in the session of a connection; False if it cannot."""
    with connection.cursor() as cursor:
        cursor.execute(SESSION)
        if cursor.fetchone() != (connection.connection.info.backend_pid,):
            return False
        cursor.execute(RELEASE)
        cursor.execute(KEEPALIVE)
        cursor.execute(TAKE, [worker_id])
        return bool(cursor.fetchone()[0])
