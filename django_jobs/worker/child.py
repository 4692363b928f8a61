"""A child process: receives tasks, runs them in its slots, reports every outcome.

The reader thread listens to the parent. Sync tasks run in the main thread, or in
threads when there are several slots; ``async def`` tasks run together on one event
loop. Both start their tasks in the order in which they came.
"""

from __future__ import annotations

import faulthandler
import io
import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
import traceback
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from types import FrameType
from typing import Any

from django.db import connections

from django_jobs import events
from django_jobs.conf import conf
from django_jobs.definitions import is_async_name
from django_jobs.failpoints import reach
from django_jobs.records import ClaimedTask, Outcome
from django_jobs.store import get_store
from django_jobs.store.sessions import LeaseGuard
from django_jobs.worker import inherited, logs, orphans, processes, tidying
from django_jobs.worker.capture import capture_logs
from django_jobs.worker.coroutines import Loop
from django_jobs.worker.doom import to_the_death
from django_jobs.worker.executor import Executor
from django_jobs.worker.timeouts import Interruptions
from django_jobs.worker.wire import Channel

logger = logging.getLogger("django_jobs")

#: None asks a thread to leave.
_Inbox = SimpleQueue[ClaimedTask | None]


@dataclass(frozen=True, slots=True)
class ChildOptions:
    """What a child is told at its start."""

    worker_id: str
    database: str
    threads: int
    coroutines: int
    log_format: str
    log_level: int
    #: What it starts is known by that.
    mark: int
    #: The names of the databases by alias, which a test runner may have changed.
    databases: dict[str, Any]


def main(end: socket.socket, faults: socket.socket, options: ChildOptions) -> None:
    """Run the child until the parent says stop or is gone.

    What Python says of a fatal signal goes to ``faults``: the parent reads it then.
    """
    _settle_in(options)
    faulthandler.enable(processes.out_of_reach(faults.detach()))
    logs.configure(options.log_format, options.log_level)
    with logs.everything_in(options.log_format):
        end = socket.socket(fileno=processes.out_of_reach(end.detach()))
        _serve(Channel(end), options)
    logs.finish_lines()
    os._exit(0)  # user threads that are no daemons must not hold it back


def _serve(channel: Channel, options: ChildOptions) -> None:
    try:
        _fail_if_not_loaded()
        for alias, name in options.databases.items():
            connections.settings[alias]["NAME"] = name
        _notice_who_is_gone(options.database)
        child = _Child(channel, options)
    except BaseException:
        # The parent says it, once: the traceback of an exception here would be a copy.
        channel.send(["broken", traceback.format_exc()])
        sys.exit(1)
    reach("child.before_ready")
    channel.send(["ready", _left_by_project()])
    child.run()


def _notice_who_is_gone(database: str) -> None:
    """Have both ends of connections notice by the end of a lease that they are alone.

    Else a task would wait two hours for an answer of a server that is gone; and what it
    has locked would be so as long for who runs it again, when its own host is gone.
    """
    lease = conf().LEASE
    get_store(database).set_patience(lease)
    LeaseGuard(database, lease).start()


def _settle_in(options: ChildOptions) -> None:
    inherited.cut()
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A child that is killed must not take with it what tasks have printed.
        sys.stdout.reconfigure(line_buffering=True)
    # A task may use multiprocessing: what dies with us is seen to by the kernel.
    multiprocessing.current_process()._config["daemon"] = False  # type: ignore[attr-defined]
    orphans.wear(options.mark)
    processes.lead_own_group()
    processes.die_with_parent(os.getppid())
    processes.prefer_as_oom_victim()
    processes.dump_no_core()
    # Ctrl-C reaches the whole terminal: the parent decides what it means. Functions,
    # not SIG_IGN: that would be inherited by programs that a task starts.
    signal.signal(signal.SIGINT, _leave_to_parent)
    signal.signal(signal.SIGTERM, _leave_to_parent)
    # Ctrl-\ does not: a child has a group of its own.
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)


def _leave_to_parent(number: int, frame: FrameType | None) -> None:
    """Do nothing."""


def _fail_if_not_loaded() -> None:
    # Late: loading the project is what this module reports about.
    from django_jobs.worker import preload

    if preload.FAILURE is not None:
        raise preload.FAILURE


def _left_by_project() -> dict[str, list[str]]:
    from django_jobs.worker import preload

    return preload.LEFT


class _Child:
    def __init__(self, channel: Channel, options: ChildOptions) -> None:
        self.channel = channel
        self.threads = options.threads
        self.inbox: _Inbox = SimpleQueue()
        self.interruptions = Interruptions()
        self.executor = Executor(
            options.worker_id, options.database, self.interruptions
        )
        self.loop = Loop(self.executor, self.report, options.coroutines)
        #: True in a process that a task has forked.
        self.is_copy = False
        #: Nothing more is started here.
        self.is_worn_out = False

    def run(self) -> None:
        """Serve until the inbox ends; sync tasks run here or in own threads."""
        capture_logs()
        processes.release_copies(self._become_copy)
        if self.threads == 1:
            self.interruptions.listen_in_main_thread()
        tidying.keep_context()
        self.surroundings = tidying.Surroundings()
        threading.Thread(target=self._read, name="reader", daemon=True).start()
        if self.threads == 1:
            self._work()
            return
        workers = [
            threading.Thread(target=self._work, name=f"slot-{number}", daemon=True)
            for number in range(self.threads)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()

    def _work(self) -> None:
        with to_the_death("slot_failed"):
            while (task := self.inbox.get()) is not None:
                if self.is_worn_out:
                    self._return([task.id])
                else:
                    context = tidying.fresh_context()
                    self.report(context.run(self.executor.run, task))

    def _become_copy(self) -> None:
        self.is_copy = True
        self.loop.end_copy_soon()

    def report(self, outcome: Outcome) -> None:
        """Send an outcome at once: the parent knows of it even if we die now."""
        if self.is_copy:
            os._exit(0)  # a task forked and forgot to end its copy
        with to_the_death("outcome_not_sent", task_id=outcome.id):
            self._tidy_up_and_send(outcome)

    def _tidy_up_and_send(self, outcome: Outcome) -> None:
        is_whole = self.surroundings.put_back(is_alone=not self.executor.is_busy)
        # Here, since the attempt ran in this thread.
        is_whole = logs.finish_lines() and is_whole
        is_worn_out = self.executor.is_short or not is_whole
        is_news = is_worn_out and not self.is_worn_out
        # Before the parent knows that there is room for another task.
        self.is_worn_out = self.is_worn_out or is_worn_out
        reach("child.before_send")
        self._send(["done", outcome])
        reach("child.after_send")
        if is_news:
            self._send(["worn out", not is_whole])

    def _send(self, message: list[Any]) -> None:
        try:
            self.channel.send(message)
        except OSError:
            # A task has closed it, or the parent is gone. Nobody would ever hear what
            # becomes of the tasks here: a crash, not one that seems to run for ever.
            try:
                events.log(logger, logging.ERROR, "channel_lost", exc_info=True)
            finally:
                os._exit(1)

    # -- the reader thread ---------------------------------------------------------

    def _read(self) -> None:
        # When the parent is gone, whatever runs here is nobody's any more.
        with to_the_death("reader_failed"):
            while True:
                for message in self.channel.receive():
                    self._obey(*message)

    def _obey(self, verb: str, *details: Any) -> None:
        if verb == "run":
            self._accept([ClaimedTask._make(row) for row in details[0]])
        elif verb == "recall":
            self._return(self._unstarted())
            self.loop.give_back(self._return)
        elif verb == "interrupt":
            self.executor.ask_to_stop(*details)
            self.interruptions.interrupt(details[0])
            self.loop.interrupt(details[0])
        elif verb == "stop":
            for _ in range(self.threads):
                self.inbox.put(None)

    def _accept(self, tasks: list[ClaimedTask]) -> None:
        reach("child.received")
        coroutines = [task for task in tasks if is_async_name(task.name)]
        if coroutines:
            self.loop.add(coroutines)
        for task in tasks:
            if not is_async_name(task.name):
                self.inbox.put(task)

    def _return(self, ids: list[str]) -> None:
        self._send(["returned", ids])

    def _unstarted(self) -> list[str]:
        ids: list[str] = []
        while True:
            try:
                task = self.inbox.get_nowait()
            except Empty:
                return ids
            if task is None:
                self.inbox.put(None)
                return ids
            ids.append(task.id)
