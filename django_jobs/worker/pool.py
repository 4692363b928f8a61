"""The children as the parent sees them: started, spoken to, watched, replaced."""

from __future__ import annotations

import errno
import itertools
import logging
import multiprocessing
import os
import random
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import Enum
from multiprocessing.util import get_temp_dir
from typing import TYPE_CHECKING, Any

from django.db import connections

from django_jobs import events
from django_jobs.conf import conf
from django_jobs.worker import child as child_module
from django_jobs.worker import processes
from django_jobs.worker.lanes import Assigned, Lane
from django_jobs.worker.options import WorkerOptions
from django_jobs.worker.orphans import Orphans
from django_jobs.worker.wire import LONGEST, BrokenChannel, Channel

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerProcess

logger = logging.getLogger("django_jobs")
_serial = itertools.count(1)
_LONGEST_FAULT = 65536
#: The main one, the reader, the event loop, and one for the database.
_THREADS_OF_CHILD = 4


class Phase(Enum):
    """Where a child is in its life."""

    STARTING = "starting"
    READY = "ready"
    RETIRING = "retiring"  #: gets nothing new and leaves when it is idle
    KILLED = "killed"


class Child:
    """A child process, its channel and what it was given."""

    def __init__(
        self, worker_id: str, options: WorkerOptions, orphans: Orphans
    ) -> None:
        ours, theirs = socket.socketpair()
        self.faults, faults = socket.socketpair()
        faults.setblocking(False)  # who dies must not wait for us
        self.number = next(_serial)
        #: The identity for which it runs tasks.
        self.worker_id = worker_id
        mark = orphans.mark_of(self.number)
        self.channel = Channel(ours, longest=_longest_message())
        self.phase = Phase.STARTING
        self.lanes = {False: Lane(options.threads), True: Lane(options.coroutines)}
        self.finished = 0
        self._most_tasks = options.recycle_after
        #: A task has done something to it that cannot be put right.
        self.is_worn_out = False
        #: Set while a recall is under way, so that it is asked once.
        self.is_recalling = False
        #: Why it was killed, and for which task; None when it died by itself.
        self.killed_for: tuple[str, str] | None = None
        self.process: ForkServerProcess = _context().Process(
            target=child_module.main,
            args=(theirs, faults, _child_options(worker_id, options, mark)),
            name=f"jobworker-child-{self.number}",
            daemon=True,
        )
        with _no_main_module():
            self.process.start()
        theirs.close()
        faults.close()

    def __repr__(self) -> str:
        return f"<Child {self.pid} {self.phase.value}>"

    @property
    def pid(self) -> int:
        return self.process.pid or 0

    @property
    def load(self) -> int:
        return sum(len(lane) for lane in self.lanes.values())

    @property
    def is_ready(self) -> bool:
        return self.phase is Phase.READY

    @property
    def is_lingering(self) -> bool:
        """Does it retire, while coroutines go on there?"""
        return self.phase is Phase.RETIRING and self.has_only_coroutines

    @property
    def has_only_coroutines(self) -> bool:
        """Does it run coroutines, no sync task, and is nothing waiting?"""
        coroutines = self.lanes[True]
        return 0 < len(coroutines.running) == self.load

    @property
    def may_take(self) -> int:
        """Return how many more tasks it may get before it is replaced."""
        if self._most_tasks is None:
            return sys.maxsize
        return max(0, self._most_tasks - self.finished - self.load)

    def kill(self, reason: str, task_id: str = "") -> None:
        """Kill the process group at once; its death is handled as it is noticed."""
        if self.phase is not Phase.KILLED:
            self.phase = Phase.KILLED
            self.killed_for = (reason, task_id)
        processes.kill_with_group(self.pid)

    def give_up(self) -> None:
        """Kill what is dead already, or cannot be trusted; it gets nothing more."""
        if self.is_ready:
            self.phase = Phase.KILLED
        processes.kill_with_group(self.pid)

    def find(self, task_id: str) -> Assigned | None:
        """Return a task that it has."""
        found = (lane.get(task_id) for lane in self.lanes.values())
        return next((one for one in found if one is not None), None)

    def retire(self) -> None:
        """Ask for what it has not started, and let it go when the rest is done."""
        self.phase = Phase.RETIRING
        self.recall()
        self.leave_if_idle()

    def leave_if_idle(self) -> None:
        if self.phase is Phase.RETIRING and not self.load:
            self.channel.post(["stop"])

    def recall(self) -> None:
        """Ask for the tasks back that it has not started."""
        if not self.is_recalling and any(lane.waiting for lane in self.lanes.values()):
            self.is_recalling = True
            self.channel.post(["recall"])

    def last_messages(self) -> Iterator[list[list[Any]]]:
        """Yield what a dead child had sent and nobody read yet."""
        while True:
            try:
                yield self.channel.receive(socket.MSG_DONTWAIT)
            except (EOFError, OSError, BrokenChannel):
                return

    def last_fault(self) -> str:
        """Return what Python said of the signal that a dead child died of."""
        data = b""
        with suppress(OSError):
            while part := self.faults.recv(_LONGEST_FAULT, socket.MSG_DONTWAIT):
                data += part
        return data.decode(errors="replace").strip()

    def bury(self) -> None:
        """Free what is left of a dead child."""
        self.faults.close()
        self.process.join(timeout=1)
        self.process.close()
        self.channel.close()


#: Tells the fork server, by the environment, where the socket to it is.
FOLDER = "DJANGO_JOBS_FORK_SERVER_FOLDER"


class Pool:
    """As many children as the options say; one that is gone is replaced."""

    #: More deaths than this in so many seconds slow the replacement down.
    DEATHS = 5
    DEATHS_WITHIN = 10.0
    #: Seconds between two lines about that.
    REPEAT = 60.0

    def __init__(self, options: WorkerOptions) -> None:
        self.options = options
        self.children: list[Child] = []
        self.orphans = Orphans()
        self.is_closed = False
        self._deaths: deque[float] = deque(maxlen=self.DEATHS)
        self._next_start = 0.0
        self._said_dying = float("-inf")
        #: How often in a row children could not be started.
        self.failures = 0
        #: It can start children here, if there is room for them.
        self.has_started = False

    def __iter__(self) -> Iterator[Child]:
        return iter(self.children)

    def missing(self) -> int:
        """Return how many children to start.

        One that retires while coroutines go on there has a successor: else all others
        would wait for the longest. One for each place, lest there be ever more; and
        none where one coroutine at a time is wanted.
        """
        if self.is_closed:
            return 0
        wanted = self.options.processes
        missing = wanted - len(self.children)
        if self.options.coroutines > 1:
            missing += sum(child.is_lingering for child in self)
        return min(missing, 2 * wanted - len(self.children))

    def wait_seconds(self) -> float | None:
        """Return how long to wait for the next start; None when none is due."""
        if self.missing() <= 0:
            return None
        return max(0.0, self._next_start - time.monotonic())

    def start_missing(self, worker_id: str) -> list[Child]:
        """Start what is missing, unless children die too fast; return the new ones."""
        if self.wait_seconds() != 0:
            return []
        started: list[Child] = []
        try:
            _need_room()
            start_fork_server()
            while self.missing() > 0:
                started.append(Child(worker_id, self.options, self.orphans))
                self.children.append(started[-1])
        except (OSError, EOFError):
            # No descriptors, no memory, the fork server was killed: try again.
            self.failures += 1
            self._next_start = time.monotonic() + 1
            if self.failures == 1:
                events.log(logger, logging.ERROR, "child_not_started", exc_info=True)
        else:
            self._started()
        return started

    def _started(self) -> None:
        self.has_started = True
        if self.failures:
            events.log(
                logger, logging.WARNING, "children_started", failures=self.failures
            )
        self.failures = 0

    def remove(self, child: Child) -> None:
        """Take a dead child out; many deaths in short order delay the next start."""
        self.children.remove(child)
        if child.phase is Phase.RETIRING:
            return
        now = time.monotonic()
        self._deaths.append(now)
        if len(self._deaths) == self.DEATHS and (
            now - self._deaths[0] < self.DEATHS_WITHIN
        ):
            self._next_start = now + random.uniform(1, 2)  # noqa: S311 - jitter
            self._say_dying(now)

    def _say_dying(self, now: float) -> None:
        if now - self._said_dying < self.REPEAT:
            return  # each death has its own line, which says how
        self._said_dying = now
        events.log(
            logger,
            logging.WARNING,
            "children_dying",
            deaths=len(self._deaths),
            seconds=now - self._deaths[0],
            hint="each further start waits for a second or two",
        )

    def kill(self, reason: str) -> None:
        for child in self.children:
            child.kill(reason)


def _need_room() -> None:
    """Raise OSError when there is no room for a process and its threads.

    The fork server would find that out by its own end, and that of all children.
    """
    is_enough = threading.Event()
    try:
        for _ in range(_THREADS_OF_CHILD):
            threading.Thread(target=is_enough.wait, daemon=True).start()
    except RuntimeError as error:
        raise OSError(errno.EAGAIN, str(error)) from error
    finally:
        is_enough.set()


def start_fork_server() -> None:
    """Start the clean process that forks the children; it loads the project.

    Early, since that takes as long as this process's own start does.
    """
    from multiprocessing import forkserver  # not on every platform

    _context().set_forkserver_preload(["django_jobs.worker.preload"])
    told = {
        # Before Python 3.13 the server is not told where we find our modules.
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        FOLDER: get_temp_dir(),
    }
    # One that ended by an error has taken it along.
    os.makedirs(told[FOLDER], mode=0o700, exist_ok=True)
    before = os.environ.copy()
    os.environ.update(told)
    try:
        forkserver.ensure_running()
    finally:
        for name in told:
            os.environ.pop(name)
        os.environ.update(before)


def _longest_message() -> int:
    """Return how many bytes a child's message may have: what is in it, escaped."""
    return max(LONGEST, 8 * conf().RESULT_MAX_BYTES)


@contextmanager
def _no_main_module() -> Iterator[None]:
    """Keep multiprocessing from running our main module once more in the child.

    No task is there, and a manage.py may start its command without asking for its
    own name: then each child would be one more worker.
    """
    main = sys.modules["__main__"]
    hidden = {name: getattr(main, name, None) for name in ("__spec__", "__file__")}
    vars(main).update(dict.fromkeys(hidden))
    try:
        yield
    finally:
        vars(main).update(hidden)


def _child_options(
    worker_id: str, options: WorkerOptions, mark: int
) -> child_module.ChildOptions:
    return child_module.ChildOptions(
        worker_id=worker_id,
        database=options.database,
        threads=options.threads,
        coroutines=options.coroutines,
        log_format=options.log_format,
        log_level=options.log_level,
        mark=mark,
        databases={
            alias: connections[alias].settings_dict["NAME"] for alias in connections
        },
    )


def _context() -> multiprocessing.context.ForkServerContext:
    return multiprocessing.get_context("forkserver")
