"""What the server is asked to end by itself: waits, and sessions of those who are gone.

Who gives up a call only closes its end of the connection. The server would go on to
wait for a lock, once more for each call that was given up. And a worker that is paused
or gone in the middle of a transaction would keep its rows locked, from those as well
who are to rescue its tasks. What its tasks have locked would be so for those who run
them again: two hours, if the kernels are asked.
"""

from __future__ import annotations

import logging
from typing import Any

from django.db import Error
from django.db.backends.signals import connection_created

from django_jobs import events
from django_jobs.store.errors import is_contended

logger = logging.getLogger("django_jobs")

#: Seconds that a statement waits for a lock, and that it may take in all.
LOCK_WAIT = 2
STATEMENT = 30
#: Seconds that a transaction may be idle at least: ours never are for long.
IDLE = 5
#: PostgreSQL: seconds until a client that is gone is asked for a sign, between two
#: such questions, and how many go unanswered; how long what is sent is unconfirmed.
KEEPALIVE = {"idle": 5, "interval": 2, "count": 3}
UNCONFIRMED = 10
#: Only where the server itself answers: behind a pooler, sessions are for all. What
#: the role or the database sets is left alone.
SET_POSTGRESQL = """
SELECT set_config(name, value, false)
FROM (VALUES ('lock_timeout', %s, true), ('statement_timeout', %s, true),
    ('idle_in_transaction_session_timeout', %s, true),
    ('tcp_keepalives_idle', %s, false), ('tcp_keepalives_interval', %s, false),
    ('tcp_keepalives_count', %s, false), ('tcp_user_timeout', %s, false))
    AS wanted (name, value, is_default)
WHERE pg_backend_pid() = %s AND NOT (is_default AND current_setting(name) <> '0')
"""
#: For as long as the lease; what the project has set anywhere is left alone.
SET_KEEPALIVE = """
SELECT set_config(name, value, false)
FROM (VALUES ('tcp_keepalives_idle', %s), ('tcp_keepalives_interval', %s),
    ('tcp_keepalives_count', %s), ('tcp_user_timeout', %s)) AS wanted (name, value)
JOIN pg_settings USING (name)
WHERE pg_backend_pid() = %s AND source = 'default'
"""
SET_MYSQL = """
SET SESSION innodb_lock_wait_timeout = LEAST(@@innodb_lock_wait_timeout, %s)
"""
SET_MARIADB = f"{SET_MYSQL}, SESSION idle_transaction_timeout = %s"


class SessionGuard:
    """Sets limits on each session that is made on an alias, while it is on."""

    def __init__(self, alias: str, idle: float) -> None:
        self.alias = alias
        #: How long a transaction may be idle, in seconds.
        self.idle = max(IDLE, round(idle))

    def start(self) -> None:
        connection_created.connect(self._guard, dispatch_uid=self)

    def stop(self) -> None:
        connection_created.disconnect(dispatch_uid=self)

    def _guard(self, *, connection: Any, **kwargs: Any) -> None:
        if connection.alias != self.alias:
            return
        try:
            with connection.cursor() as cursor:
                self._set(cursor, connection)
        except Error as error:
            # Not on the way to the server, but in what was asked: it may lack them.
            if is_contended(error) or connection.is_usable():
                events.log(
                    logger, logging.DEBUG, "limits_not_set", error_message=str(error)
                )
                return
            raise

    def _set(self, cursor: Any, connection: Any) -> None:
        set_limits(cursor, connection, self.idle)


class LeaseGuard(SessionGuard):
    """Has sessions of those whose host is gone end about when its lease does.

    Nothing else: how long a statement of a task may take is for the project to say.
    """

    def __init__(self, alias: str, lease: float) -> None:
        super().__init__(alias, idle=0)
        self.lease = lease

    def _set(self, cursor: Any, connection: Any) -> None:
        if connection.vendor == "postgresql":
            values = list(map(str, keepalive_within(self.lease).values()))
            pid = connection.connection.info.backend_pid
            cursor.execute(SET_KEEPALIVE, [*values, pid])


def keepalive_within(seconds: float) -> dict[str, int]:
    """Return after how long to ask, how often, how many times, and when to give up.

    As the server and libpq take them, the last in milliseconds; within so many seconds.
    """
    return {
        "idle": max(1, round(seconds / 3)),
        "interval": max(1, round(seconds / 6)),
        "count": 4,
        "user_timeout": round(seconds * 1000),
    }


def set_limits(cursor: Any, connection: Any, idle: int) -> None:
    """Set the limits of the session that a cursor is of."""
    if connection.vendor == "postgresql":
        keepalive = [*KEEPALIVE.values(), UNCONFIRMED * 1000]
        timeouts = [seconds * 1000 for seconds in (LOCK_WAIT, STATEMENT, idle)]
        values = [str(value) for value in (*timeouts, *keepalive)]
        pid = connection.connection.info.backend_pid
        cursor.execute(SET_POSTGRESQL, [*values, pid])
    elif connection.vendor == "mysql" and connection.mysql_is_mariadb:
        cursor.execute(SET_MARIADB, [LOCK_WAIT, idle])
    elif connection.vendor == "mysql":
        cursor.execute(SET_MYSQL, [LOCK_WAIT])
