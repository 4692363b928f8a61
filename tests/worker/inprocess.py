"""A whole worker in this process: its children are threads, all else is real.

The supervisor runs its loop in a thread of its own, with its database threads, its
heartbeat, its listener and its chores. A child is the real child behind a real
channel, but for the process: a test can have hundreds of workers, one after another.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Self, cast

import pytest
from asgiref.sync import SyncToAsync
from django.db import connections

from django_jobs.records import Outcome
from django_jobs.worker import (
    atomic,
    child,
    completer,
    coroutines,
    exchange,
    heartbeat,
    listener,
    maintenance,
    outage,
    pool,
    reconciling,
    supervisor,
)
from django_jobs.worker.options import WorkerOptions
from django_jobs.worker.orphans import Orphans
from django_jobs.worker.pool import Phase
from django_jobs.worker.supervisor import Supervisor
from django_jobs.worker.wire import BrokenChannel, Channel
from tests.worker.parts import NOBODY, PATIENCE, FakeChild, wait_for

#: Pauses of the worker that a test need not wait for, in seconds.
PAUSES: list[tuple[Any, str, Any]] = [
    (outage, "FIRST_PAUSE", 0.001),
    (outage, "LONGEST_PAUSE", 0.01),
    (outage.pause_after, "__defaults__", (0.01,)),
    (completer, "LONGEST_PAUSE", 0.01),
    (completer, "LONGEST_WAIT", 0.01),
    (atomic, "FIRST_WAIT", 0.001),
    (heartbeat, "REVOKE_CHECK", 0.02),
    (heartbeat, "FAULT_PAUSE", 0.01),
    (listener, "RECONNECT", 0.02),
    (listener, "LONGEST_WAIT", 0.02),
    (listener, "LOCK_AGAIN", 0.02),
    (listener, "COUNTER_LOOK", 0.02),
    (maintenance, "PRUNE_EVERY", 0.02),
    (reconciling, "FIRST_PAUSE", 0.02),
    (maintenance, "FOR_ALL", 0.0),
    (supervisor, "TICK", 0.01),
    (supervisor, "IDLE_TICK", 0.02),
    (exchange, "LINGER", 0.001),
]


class _Threads(child._Child):
    """What a child process does, in threads that end with its channel.

    But for what is done to a process as such: this one is not put back into its first
    state, and it outlives what goes wrong in a thread.
    """

    def run(self) -> None:
        workers = [
            threading.Thread(
                target=self._work_and_close, name=f"slot-{number}", daemon=True
            )
            for number in range(self.threads)
        ]
        for each in workers:
            each.start()
        self._read()
        for each in workers:
            each.join()
        if (loop := self.loop._loop) is not None:
            loop.call_soon_threadsafe(loop.stop)
            wait_for(lambda: not loop.is_running())
            loop.close()

    def _work_and_close(self) -> None:
        self._work()
        connections.close_all()

    def _tidy_up_and_send(self, outcome: Outcome) -> None:
        self._send(["done", outcome])

    def _send(self, message: list[Any]) -> None:
        # The channel is closed when the worker has ended its child.
        with suppress(OSError):
            self.channel.send(message)

    def _read(self) -> None:
        with suppress(EOFError, OSError, BrokenChannel):
            while True:
                for message in self.channel.receive():
                    self._obey(*message)
        self._obey("stop")


class _NoProcess:
    """What the parent knows of a child's process, of threads."""

    pid = NOBODY
    exitcode = 0

    def __init__(self, end: socket.socket, options: child.ChildOptions) -> None:
        self._end = end
        #: Can be read once the child is gone.
        self.sentinel, self._alive = os.pipe()
        self._thread = threading.Thread(
            target=self._run, args=(options,), name="child", daemon=True
        )
        self._thread.start()

    def _run(self, options: child.ChildOptions) -> None:
        channel = Channel(self._end)
        channel.send(["ready"])
        _Threads(channel, options).run()
        self._end.close()
        os.close(self._alive)

    def end(self) -> None:
        with suppress(OSError):
            self._end.shutdown(socket.SHUT_RDWR)

    def join(self, timeout: float) -> None:
        self.end()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()

    def close(self) -> None:
        os.close(self.sentinel)


@contextmanager
def _to_the_end(event: str, **fields: Any) -> Iterator[None]:
    """In place of what kills the process: the thread ends, and with it the test."""
    yield


class ThreadChild(FakeChild):
    def __init__(
        self, worker_id: str, options: WorkerOptions, orphans: Orphans
    ) -> None:
        ours, theirs = socket.socketpair()
        super().__init__(
            threads=options.threads,
            coroutines=options.coroutines,
            channel=Channel(ours),
        )
        self.phase = Phase.STARTING
        self.worker_id = worker_id
        told = pool._child_options(worker_id, options, orphans.mark_of(self.number))
        self.process = cast(Any, _NoProcess(theirs, told))

    def kill(self, reason: str, task_id: str = "") -> None:
        super().kill(reason, task_id)
        self.process.end()  # type: ignore[attr-defined]

    def bury(self) -> None:
        super().bury()
        self.process.join(timeout=1)
        self.process.close()


class InProcessWorker:
    """A supervisor whose loop runs in a thread."""

    def __init__(self, **options: Any) -> None:
        self.supervisor = Supervisor(
            WorkerOptions(database="default", processes=1, **options)
        )
        self._thread = threading.Thread(target=self._run, name="parent", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Stop gracefully, and see that nothing of it is left."""
        self.supervisor.stop()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        close_coroutine_connections()

    def _run(self) -> None:
        try:
            self.supervisor.run()
        finally:
            connections.close_all()

    def missing_threads(self) -> set[str]:
        """Return the names of threads that should run and do not."""
        names = {"parent", "child", "heartbeat", "slot-0", "slot-1"}
        store = self.supervisor.store
        names |= {f"database-{number}" for number in range(store.cycles_in_flight)}
        if store.can_notify or store.can_count:
            names.add("listener")
        return names - {thread.name for thread in threading.enumerate()}

    def wait_for_heartbeat(self) -> None:
        """Wait until a sign of life that is asked for from now on has been given."""
        now, identity = time.monotonic(), self.supervisor.identity
        wait_for(lambda: identity.renewed_at > now)

    def wait_until_idle(self) -> None:
        """Wait for runs that are committed and not over: their line is not said yet."""
        wait_for(lambda: not self.supervisor.heartbeat.running)

    def hurry(self) -> None:
        """Let the time pass until the next round of chores."""
        now = time.monotonic()

        def due() -> None:
            for chore in self.supervisor.chores:
                if chore.due != float("inf"):
                    chore.due = min(chore.due, now + 0.01)

        self.supervisor.mailbox.post(due)


@contextmanager
def short_pauses() -> Iterator[None]:
    """Let workers of this process pause for short, and have threads for children."""
    with pytest.MonkeyPatch.context() as patch:
        for module, name, seconds in PAUSES:
            patch.setattr(module, name, seconds)
        notifications = listener._Notifications
        wait = notifications.wait
        patch.setattr(notifications, "wait", lambda self, seconds: wait(self, 0.02))
        patch.setattr(pool, "Child", ThreadChild)
        patch.setattr(pool, "start_fork_server", lambda: None)
        patch.setattr(child, "to_the_death", _to_the_end)
        patch.setattr(coroutines, "to_the_death", _to_the_end)
        yield


def close_coroutine_connections() -> None:
    """Close what coroutines have opened: asgiref runs their ORM calls in one thread."""
    SyncToAsync.single_thread_executor.submit(connections.close_all).result(PATIENCE)
