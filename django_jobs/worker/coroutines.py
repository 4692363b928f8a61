"""The event loop of a child, on which its ``async def`` tasks run together."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Any

from django_jobs import events
from django_jobs.exceptions import (
    SoftTimeLimitExceeded,
    TaskInterrupted,
    TaskInterruption,
)
from django_jobs.records import ClaimedTask, Outcome
from django_jobs.worker import copies, leftovers
from django_jobs.worker.doom import to_the_death
from django_jobs.worker.tidying import fresh_context

if TYPE_CHECKING:
    from django_jobs.worker.executor import Executor

logger = logging.getLogger("django_jobs")


def _cancelling(kind: type[TaskInterruption]) -> type[TaskInterruption]:
    """Return the exception as a cancellation too, by the name that it has.

    What asyncio does when a coroutine is cancelled, as a task group that cancels its
    parts, it has to do here as well: none of them may outlive the task.
    """
    bases = (kind, asyncio.CancelledError)
    return type(kind.__name__, bases, {"__module__": kind.__module__})


SoftLimit = _cancelling(SoftTimeLimitExceeded)
Interrupted = _cancelling(TaskInterrupted)


class Loop:
    """Runs coroutine tasks in a thread of its own, started with the first of them."""

    def __init__(
        self, executor: Executor, report: Callable[[Outcome], None], slots: int
    ) -> None:
        self._executor = executor
        self._report = report
        self._slots = slots
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: deque[ClaimedTask] = deque()
        self._running: dict[str, asyncio.Task[None]] = {}
        self._interruptible: dict[str, Interruptible] = {}
        #: Running tasks that were interrupted before they could be.
        self._interrupted: set[str] = set()
        #: Aliases on which what a running task wrote was rolled back with another's.
        self._lost: dict[str, set[str]] = {}

    def add(self, tasks: list[ClaimedTask]) -> None:
        """Run tasks, each as soon as a slot is free; called by the reader thread."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            threading.Thread(
                target=_serve, args=(self._loop,), name="event-loop", daemon=True
            ).start()
        self._loop.call_soon_threadsafe(self._add, tasks)

    def interrupt(self, task_id: str) -> None:
        """Raise TaskInterrupted in a running task."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._interrupt, task_id)

    def give_back(self, answer: Callable[[list[str]], None]) -> None:
        """Take out the tasks that have not started; ``answer`` gets their ids.

        By a call from the loop: a task that blocks it must not block the asker too.
        """
        if self._loop is not None:
            self._loop.call_soon_threadsafe(lambda: answer(self._empty()))

    def end_copy_soon(self) -> None:
        """In a process that a coroutine has forked: run nothing after that one."""
        if self._loop is not None:
            copies.end_with_this_call(self._loop)

    # -- in the loop's thread --------------------------------------------------------

    def _add(self, tasks: list[ClaimedTask]) -> None:
        self._waiting.extend(tasks)
        self._fill()

    def _fill(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting and len(self._running) < self._slots:
            task = self._waiting.popleft()
            # In a context of its own, not in a copy of that of the task before it.
            run = loop.create_task(self._run(task), context=fresh_context())
            self._running[task.id] = run

    async def _run(self, task: ClaimedTask) -> None:
        leftovers.coroutine.set(task.id)
        try:
            with to_the_death("coroutine_failed", task_id=task.id):
                outcome = await self._executor.run_async(task, self._watched)
            self._report(outcome)
        finally:
            self._interruptible.pop(task.id, None)
            self._interrupted.discard(task.id)
            self._lost.pop(task.id, None)
            del self._running[task.id]
            self._fill()

    async def _watched(
        self,
        task_id: str,
        soft_time_limit: float | None,
        call: Coroutine[Any, Any, Any],
    ) -> Any:
        if task_id in self._interrupted:
            call.close()
            raise TaskInterrupted
        interruptible = self._interruptible[task_id] = Interruptible(call)
        try:
            if soft_time_limit is None:
                value = await interruptible
            else:
                value = await _limited(interruptible, soft_time_limit)
        except BaseException:
            if leftovers.is_any_open():
                await self._end_left(task_id)
            raise
        if leftovers.is_any_open() and (aliases := await self._end_left(task_id)):
            raise leftovers.left_open(aliases)
        if lost_on := self._lost.get(task_id):
            raise leftovers.lost(lost_on)
        return value

    async def _end_left(self, task_id: str) -> set[str]:
        """Roll back what this task left open, or one that was over before."""

        def is_over(opener: str | None) -> bool:
            if opener is None:
                return len(self._running) == 1
            return opener == task_id or opener not in self._running

        left = await leftovers.end_left(is_over)
        for alias, writers in left.items():
            # They are told at their end, lest they be successful without their writes.
            for writer in self._running.keys() & writers:
                self._lost.setdefault(writer, set()).add(alias)
        return set(left)

    def _interrupt(self, task_id: str) -> None:
        if (interruptible := self._interruptible.get(task_id)) is not None:
            interruptible.throw(Interrupted())
        elif task_id in self._running:
            self._interrupted.add(task_id)

    def _empty(self) -> list[str]:
        ids = [task.id for task in self._waiting]
        self._waiting.clear()
        return ids


async def _limited(interruptible: Interruptible, soft_time_limit: float) -> Any:
    loop = asyncio.get_running_loop()
    alarm = loop.call_later(soft_time_limit, interruptible.throw, SoftLimit())
    try:
        return await interruptible
    finally:
        alarm.cancel()


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    """Run the loop for ever, although a coroutine tries to leave the process."""
    pid = os.getpid()
    while True:
        try:
            return loop.run_forever()
        except (SystemExit, KeyboardInterrupt):
            # Of a coroutine that a task started beside itself; the others go on.
            _end_copy(pid)
            events.log(logger, logging.ERROR, "exit_in_coroutine", exc_info=True)
        except BaseException:
            # Of the loop itself: a task has closed its descriptors. What awaits here
            # would never go on, and nobody would notice.
            _end_copy(pid)
            try:
                events.log(logger, logging.ERROR, "loop_broken", exc_info=True)
            finally:
                os._exit(1)
        finally:
            _end_copy(pid)


def _end_copy(pid: int) -> None:
    """End this process at once if it was forked from the one of that id."""
    if os.getpid() != pid:
        os._exit(0)


class Interruptible:
    """Awaits a coroutine and can raise an exception of choice inside it.

    asyncio can only cancel. So the wait is cancelled, and what arrives here as
    CancelledError is thrown on into the coroutine as the exception that was meant.
    """

    def __init__(self, call: Coroutine[Any, Any, Any]) -> None:
        self._call = call
        self._task: asyncio.Task[Any] | None = None
        self._error: BaseException | None = None

    def throw(self, error: BaseException) -> None:
        """Raise ``error`` where the coroutine waits now."""
        if self._task is not None and self._error is None:
            self._error = error
            self._task.cancel()

    def __await__(self) -> Generator[Any, Any, Any]:
        self._task = asyncio.current_task()
        try:
            return (yield from self._steps())
        except BaseExceptionGroup as group:
            raise _freed(group) from None
        finally:
            self._task = None

    def _steps(self) -> Generator[Any, Any, Any]:
        step, argument, pid = self._call.send, None, os.getpid()
        while True:
            try:
                waited_for = step(argument)
            except StopIteration as stop:
                return stop.value
            finally:
                _end_copy(pid)
            try:
                argument = yield waited_for
                step = self._call.send
            except asyncio.CancelledError as cancelled:
                step, argument = self._call.throw, self._meant(cancelled)
            except BaseException as error:
                step, argument = self._call.throw, error

    def _meant(self, cancelled: BaseException) -> BaseException:
        error, self._error = self._error, None
        if error is None:
            return cancelled
        if self._task is not None:
            self._task.uncancel()
        return error


def _freed(group: BaseExceptionGroup[Any]) -> BaseException:
    """Return the interruption that a task group has wrapped, else the group."""
    try:
        interruptions, rest = group.split(TaskInterruption)
    except RecursionError:  # what we have raised is not as deep
        return group
    found: BaseException | None = interruptions
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return group if rest or found is None else found
