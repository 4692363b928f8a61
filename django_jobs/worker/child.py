"""A child process: receives tasks, runs them in its slots, reports every outcome.

The reader thread listens to the parent. Sync tasks run in the main thread, or in
threads when there are several slots; ``async def`` tasks run together on one event
loop. Both start their tasks in the order in which they came.
"""

from __future__ import annotations

import io
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

from django_jobs.definitions import is_async_name
from django_jobs.records import ClaimedTask, Outcome
from django_jobs.worker import logs, processes
from django_jobs.worker.capture import capture_logs
from django_jobs.worker.coroutines import Loop
from django_jobs.worker.executor import Executor
from django_jobs.worker.timeouts import Interruptions
from django_jobs.worker.wire import BrokenChannel, Channel

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
    #: The names of the databases by alias, which a test runner may have changed.
    databases: dict[str, Any]


def main(end: socket.socket, options: ChildOptions) -> None:
    """Run the child until the parent says stop or is gone."""
    _settle_in()
    logs.configure(options.log_format, options.log_level)
    with logs.everything_in(options.log_format):
        _serve(Channel(end), options)
    logs.finish_lines()
    os._exit(0)  # user threads that are no daemons must not hold it back


def _serve(channel: Channel, options: ChildOptions) -> None:
    try:
        _fail_if_not_loaded()
        for alias, name in options.databases.items():
            connections.settings[alias]["NAME"] = name
        child = _Child(channel, options)
    except BaseException:
        # The parent says it, once: the traceback of an exception here would be a copy.
        channel.send(["broken", traceback.format_exc()])
        sys.exit(1)
    channel.send(["ready"])
    child.run()


def _settle_in() -> None:
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A child that is killed must not take with it what tasks have printed.
        sys.stdout.reconfigure(line_buffering=True)
    # A task may use multiprocessing: what dies with us is seen to by the kernel.
    multiprocessing.current_process()._config["daemon"] = False  # type: ignore[attr-defined]
    processes.lead_own_group()
    processes.die_with_parent(os.getppid())
    processes.prefer_as_oom_victim()
    # Ctrl-C reaches the whole terminal: the parent decides what it means. Functions,
    # not SIG_IGN: that would be inherited by programs that a task starts.
    signal.signal(signal.SIGINT, _leave_to_parent)
    signal.signal(signal.SIGTERM, _leave_to_parent)


def _leave_to_parent(number: int, frame: FrameType | None) -> None:
    """Do nothing."""


def _fail_if_not_loaded() -> None:
    # Late: loading the project is what this module reports about.
    from django_jobs.worker import preload

    if preload.FAILURE is not None:
        raise preload.FAILURE


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

    def run(self) -> None:
        """Serve until the inbox ends; sync tasks run here or in own threads."""
        capture_logs()
        processes.release_copies(self._become_copy)
        threading.Thread(target=self._read, name="reader", daemon=True).start()
        if self.threads == 1:
            self.interruptions.listen_in_main_thread()
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
        while (task := self.inbox.get()) is not None:
            self.report(self.executor.run(task))

    def _become_copy(self) -> None:
        self.is_copy = True
        self.loop.end_copy_soon()

    def report(self, outcome: Outcome) -> None:
        """Send an outcome at once: the parent knows of it even if we die now."""
        if self.is_copy:
            os._exit(0)  # a task forked and forgot to end its copy
        logs.finish_lines()  # the attempt ran in this thread
        self.channel.send(["done", outcome])

    # -- the reader thread ---------------------------------------------------------

    def _read(self) -> None:
        try:
            while True:
                for message in self.channel.receive():
                    self._obey(*message)
        except (EOFError, OSError, BrokenChannel):
            # The parent is gone: whatever runs here is nobody's any more.
            processes.kill_with_group(os.getpid())

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
        coroutines = [task for task in tasks if is_async_name(task.name)]
        if coroutines:
            self.loop.add(coroutines)
        for task in tasks:
            if not is_async_name(task.name):
                self.inbox.put(task)

    def _return(self, ids: list[str]) -> None:
        self.channel.send(["returned", ids])

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
