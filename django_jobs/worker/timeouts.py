"""Exceptions raised in a running task from outside: soft limits and interruptions.

In the main thread by SIGALRM, which ends most blocking calls; in other threads by the
interpreter's asynchronous exception, which waits for the next bytecode; on the event
loop by throwing into the coroutine (see ``coroutines``).
"""

from __future__ import annotations

# The module signal makes enums of all numbers, which takes twenty times as long.
import _signal  # type: ignore[import-not-found]
import ctypes
import math
import signal
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from django_jobs.exceptions import SoftTimeLimitExceeded, TaskInterrupted

_raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc
_raise_in.argtypes = [ctypes.c_ulong, ctypes.py_object]
#: NULL instead of a class takes back what the thread has not raised yet.
_NOTHING = ctypes.py_object()
_ALARM = int(signal.SIGALRM)


class Interruptions:
    """Knows which sync task runs in which thread, and raises in it when asked."""

    def __init__(self) -> None:
        self._threads: dict[str, int] = {}
        self._lock = threading.Lock()
        self._alarms = _AlarmClock(self._raise)
        self._has_signals = False
        self._wanted: tuple[str, type[BaseException]] | None = None

    def listen_in_main_thread(self) -> None:
        """Use SIGALRM; for a child whose tasks run in its main thread."""
        signal.signal(signal.SIGALRM, self._on_alarm)
        self._has_signals = True

    def watch(self, task_id: str, soft_time_limit: float | None) -> _Watch:
        """Return a context in which the task may be interrupted.

        The exception may still come out of the context's own exit, when the limit was
        over in that very moment: catch it around the ``with`` statement.
        """
        return _Watch(self, task_id, soft_time_limit)

    def interrupt(self, task_id: str) -> None:
        """Raise TaskInterrupted in the task if a thread of this process runs it."""
        self._raise(task_id, TaskInterrupted)

    # -- for _Watch ----------------------------------------------------------------

    def enter(self, task_id: str, soft_time_limit: float | None) -> None:
        self._threads[task_id] = threading.get_ident()
        # Looked at for every task: another one may have changed it.
        if self._has_signals and _signal.getsignal(_ALARM) != self._on_alarm:
            signal.signal(signal.SIGALRM, self._on_alarm)
        if soft_time_limit is None:
            return
        if self._has_signals:
            self._wanted = (task_id, SoftTimeLimitExceeded)
            signal.setitimer(signal.ITIMER_REAL, soft_time_limit)
        else:
            self._alarms.set(task_id, time.monotonic() + soft_time_limit)

    def leave(self, task_id: str) -> None:
        if self._has_signals:
            self._threads.pop(task_id, None)
            if self._wanted is not None:
                signal.setitimer(signal.ITIMER_REAL, 0)
                self._wanted = None
            return
        with self._lock:
            thread = self._threads.pop(task_id, None)
            if thread is not None:
                _raise_in(thread, _NOTHING)
        self._alarms.unset(task_id)

    # -- how it is raised ----------------------------------------------------------

    def _raise(self, task_id: str, error: type[BaseException]) -> None:
        with self._lock:
            thread = self._threads.get(task_id)
            if thread is None:
                return
            if self._has_signals:
                self._wanted = (task_id, error)
                signal.pthread_kill(thread, signal.SIGALRM)
            else:
                _raise_in(thread, error)

    def _on_alarm(self, number: int, frame: object) -> None:
        # A task may have stopped being watched since the signal was sent.
        wanted, self._wanted = self._wanted, None
        if wanted is not None and wanted[0] in self._threads:
            raise wanted[1]


class _Watch:
    __slots__ = ("interruptions", "limit", "task_id")

    def __init__(
        self, interruptions: Interruptions, task_id: str, limit: float | None
    ) -> None:
        self.interruptions = interruptions
        self.task_id = task_id
        self.limit = limit

    def __enter__(self) -> Self:
        self.interruptions.enter(self.task_id, self.limit)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.interruptions.leave(self.task_id)


class _AlarmClock:
    """One thread that waits for the soft limits of all threads; started when used."""

    def __init__(self, ring: Callable[[str, type[BaseException]], None]) -> None:
        self._ring = ring
        #: When the limit of each running task is over, monotonic.
        self._due: dict[str, float] = {}
        self._next_look = math.inf
        # Entered itself, not by the condition: that would be Python code, in which
        # an interruption could leave it locked.
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._thread: threading.Thread | None = None

    def set(self, task_id: str, at: float) -> None:
        with self._lock:
            self._due[task_id] = at
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="soft-limits", daemon=True
                )
                self._thread.start()
            if at < self._next_look:
                self._changed.notify()

    def unset(self, task_id: str) -> None:
        with self._lock:
            self._due.pop(task_id, None)

    def _run(self) -> None:
        while True:
            self._ring(self._wait(), SoftTimeLimitExceeded)

    def _wait(self) -> str:
        """Wait until a limit is over; return whose."""
        with self._lock:
            while True:
                first = min(self._due, key=self._due.__getitem__, default="")
                self._next_look = self._due.get(first, math.inf)
                remaining = self._next_look - time.monotonic()
                if remaining <= 0:
                    del self._due[first]
                    return first
                self._changed.wait(min(remaining, threading.TIMEOUT_MAX))
