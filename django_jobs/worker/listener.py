"""What tells an idle worker that there is work. A hint only: the poll finds all.

PostgreSQL: LISTEN, with a ping to itself that shows whether notifications arrive at
all (a pooler may swallow them); not even LISTEN where a pooler is seen to share out
the sessions of the server. SQLite: a counter that changes with every commit.
Elsewhere nothing: the loop polls faster.

The session that listens may also hold a lock, which ends with it: by that, others
notice sooner that the worker is dead (``store/locks.py``).
"""

from __future__ import annotations

import logging
import selectors
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import closing
from typing import Any

from django.db import connections

from django_jobs import events
from django_jobs.conf import conf
from django_jobs.store import Store
from django_jobs.store.base import CHANNEL
from django_jobs.store.locks import take_lock
from django_jobs.worker.outage import Outage, is_trouble, survived
from django_jobs.worker.watchdog import Watch

logger = logging.getLogger("django_jobs")

#: Seconds between two pings, and how long an echo may take.
PING = 20.0
ECHO = 5.0
#: Seconds between two attempts to take the lock: a session before may still have it.
LOCK_AGAIN = 2.0
#: How often to look whether a session is shared: a busy pooler may hide it once.
LOOKS = 3
#: Seconds between two looks at a change counter.
COUNTER_LOOK = 0.01
#: Seconds before a broken connection is replaced.
RECONNECT = 1.0
LONGEST_WAIT = 10.0
#: Of descriptors of any number: there are two for each child.
_Selector = getattr(selectors, "PollSelector", selectors.SelectSelector)


class Listener:
    """A thread that calls ``wake`` when something was committed."""

    def __init__(
        self,
        store: Store,
        alias: str,
        name: str,
        wake: Callable[[], None],
        watch: Watch,
    ) -> None:
        self.store = store
        self.alias = alias
        #: The identity whose lock the session shall hold; empty for none.
        self.lock_for = ""
        #: The lock that is held: whose, and in which of our sessions, counted from 1.
        self.lock: tuple[str, int] | None = None
        self._sessions = 0
        self._next_lock = 0.0
        #: In a row.
        self._failures = 0
        #: Do notifications arrive? If not, the loop must poll as if there were none.
        self.is_heard = False
        self._has_complained = False
        # Of its own: who listens may be refused where others are served.
        self._outage = Outage(
            alias, "listener_failed", "listener_back", logging.WARNING
        )
        self._name = name
        self._wake = wake
        self._watch = watch
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start listening, where there is something to listen to."""
        listen = self._listen if self.store.can_notify else self._count
        if conf().NOTIFY if self.store.can_notify else self.store.can_count:
            self._thread = threading.Thread(
                target=self._run, args=(listen,), name="listener", daemon=True
            )
            self._thread.start()

    def close(self, timeout: float) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout)

    # -- in the thread ---------------------------------------------------------------

    def _run(self, listen: Callable[[], None]) -> None:
        while not self._stop.is_set():
            with survived(self._stop.wait):
                self._stop.wait(self._attempt(listen))

    def _attempt(self, listen: Callable[[], None]) -> float:
        """Listen as long as it goes well; return how long to wait before the next."""
        try:
            listen()
        except Exception as error:
            # Of those in a row: who was heard just had a good connection.
            self._failures = 1 if self.is_heard else self._failures + 1
            wait: float = min(
                RECONNECT * 2 ** min(self._failures, 10) / 2, LONGEST_WAIT
            )
            self._say_failed(error, self._failures, wait)
            return wait
        finally:
            self.is_heard = False
            self.lock = None
        return RECONNECT / 2

    def _say_failed(self, error: Exception, failures: int, wait: float) -> None:
        if is_trouble(error):
            self._outage.failed(self, error, wait)
            return
        events.log(
            logger,
            logging.WARNING,
            "listener_failed",
            failures=failures,
            error=str(error),
            exc_info=failures == 1,
        )

    def _count(self) -> None:
        try:
            seen = self.store.changes()
            self.is_heard = True
            self._outage.succeeded(self)
            self._wake()  # for what was committed before the first look
            while not self._stop.wait(COUNTER_LOOK):
                if (now := self.store.changes()) != seen:
                    seen = now
                    self._wake()
        finally:
            connections[self.store.alias].close()

    def _listen(self) -> None:
        with closing(_connection(self.alias)) as connection:
            if (notifications := self._begin(connection)) is not None:
                self._outage.succeeded(self)
                self._wake()  # for what was committed before we listened
                with connection.wrap_database_errors:
                    self._hear(notifications, connection)
                return
        # LISTEN would stay behind on a session of the server that others are given:
        # what they did not ask for would pile up in the memory of their drivers.
        self._outage.succeeded(self)
        self._say_swallowed()
        self._stop.wait(PING)

    def _begin(self, connection: Any) -> _Notifications | None:
        """Listen, unless others are given the same session of the server."""
        with (
            closing(_connection(self.alias)) as other,
            self._watch.call("listen", connection, other),
            connection.cursor() as ours,
            other.cursor() as theirs,
        ):
            if any(_is_same_session(ours, theirs) for _ in range(LOOKS)):
                return None
            notifications = _Notifications(connection.connection)
            ours.execute(f"LISTEN {CHANNEL}")
            return notifications

    def _hear(self, notifications: _Notifications, connection: Any) -> None:
        self._sessions += 1
        next_ping = pinged = time.monotonic()
        is_waiting = False
        while not self._stop.is_set():
            now = time.monotonic()
            self._hold_lock(connection, now)
            if now >= next_ping:
                self._ping()
                pinged, next_ping, is_waiting = now, now + PING, True
            elif is_waiting and now > pinged + ECHO:
                is_waiting, was_heard = False, self.is_heard
                self._say_swallowed()
                if was_heard:
                    return  # what was heard so far is half open: listen anew
            for payload in notifications.wait(0.5):
                if payload == f"ping {self._name}":
                    is_waiting = False
                    self._say_heard()
                elif not payload.startswith("ping "):
                    self._wake()

    def _hold_lock(self, connection: Any, now: float) -> None:
        """Have the session hold the lock of the present identity, if it is to."""
        wanted = (self.lock_for, self._sessions)
        if not self.lock_for or wanted == self.lock or now < self._next_lock:
            return
        self._next_lock = now + LOCK_AGAIN
        with self._watch.call("lock", connection):
            self.lock = wanted if take_lock(connection, wanted[0]) else None

    def _ping(self) -> None:
        # By the way that those of others take. The connection that listens would be
        # told of its own at once, also by a pooler that swallows all others.
        payload = f"ping {self._name}"
        with (
            closing(_connection(self.store.alias)) as connection,
            self._watch.call("ping", connection),
            connection.cursor() as cursor,
        ):
            cursor.execute(f"SELECT pg_notify('{CHANNEL}', %s)", [payload])

    def _say_heard(self) -> None:
        if not self.is_heard:
            events.log(logger, logging.INFO, "notifications_heard", alias=self.alias)
        self.is_heard = True
        self._has_complained = False

    def _say_swallowed(self) -> None:
        if self.is_heard:
            events.log(logger, logging.WARNING, "notifications_lost", alias=self.alias)
        elif not self._has_complained:
            events.log(
                logger,
                logging.WARNING,
                "notifications_swallowed",
                alias=self.alias,
                hint="a pooler in transaction mode, or LISTEN_DATABASE is another "
                "database? polling",
            )
        self.is_heard = False
        self._has_complained = True


def _connection(alias: str) -> Any:
    """Return a connection of our own, not one of Django's pool.

    A pool of the usual size has none to spare, and would hand out one that listens.
    """
    connection: Any = connections[alias].copy()
    connection.settings_dict["OPTIONS"].pop("pool", None)
    return connection


def _is_same_session(ours: Any, theirs: Any) -> bool:
    """Return True when a pooler is seen to give a session to whoever has a statement.

    The other cursor holds its session in a transaction meanwhile. It may be the only
    one of the pooler: then ours is not asked again, which would wait for ever.
    """
    before = _session(ours)
    theirs.execute("BEGIN")
    try:
        return _session(theirs) == before or _session(ours) != before
    finally:
        theirs.execute("ROLLBACK")


def _session(cursor: Any) -> int:
    """Return the process of the server that answers."""
    cursor.execute("SELECT pg_backend_pid()")
    process: int = cursor.fetchone()[0]
    return process


class _Notifications:
    """What arrives on a connection, with psycopg 3 and psycopg2."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw
        self._payloads: deque[str] = deque()
        if hasattr(raw, "add_notify_handler"):
            # psycopg 3 hands over here what arrives during a statement, as an echo
            # of a ping may; without a handler it would be out of our sight.
            raw.add_notify_handler(lambda notify: self._payloads.append(notify.payload))

    def wait(self, seconds: float) -> list[str]:
        """Return the payloads that have arrived; wait for the first one if need be."""
        if not self._payloads:
            with _Selector() as selector:
                selector.register(self._raw, selectors.EVENT_READ)
                selector.select(seconds)
            self._read()
        payloads = list(self._payloads)
        self._payloads.clear()
        return payloads

    def _read(self) -> None:
        if hasattr(self._raw, "pgconn"):
            self._raw.pgconn.consume_input()
            while (notify := self._raw.pgconn.notifies()) is not None:
                self._payloads.append(notify.extra.decode())
            return
        self._raw.poll()
        while self._raw.notifies:
            self._payloads.append(self._raw.notifies.pop(0).payload)
