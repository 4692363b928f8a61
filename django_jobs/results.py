"""``TaskResult``: what is known of a task, as its caller or anybody else sees it."""

from __future__ import annotations

import asyncio
import math
import sys
import time
import warnings
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, NoReturn, TypeVar
from uuid import UUID

from asgiref.sync import sync_to_async
from django.db import InterfaceError, OperationalError, connections

from django_jobs.exceptions import (
    ResultError,
    ResultTimeout,
    TaskExpired,
    TaskFailed,
    TaskNotFound,
    TaskRevoked,
    UnknownState,
    seconds,
)
from django_jobs.hints import instead_of_result, missing
from django_jobs.ids import canonical
from django_jobs.lateness import too_late
from django_jobs.records import TaskRecord
from django_jobs.serializers import loads
from django_jobs.states import State
from django_jobs.store import Store, get_store
from django_jobs.store.connecting import replace_if_dead
from django_jobs.store.tables import migrated_store

R = TypeVar("R")

#: First and longest pause between two looks at an unfinished task, in seconds.
_FIRST_PAUSE = 0.005
_LONGEST_PAUSE = 0.5
_PAUSE_GROWTH = 1.5

#: The context of the task that runs here, None outside of tasks.
running_task: ContextVar[object] = ContextVar("django_jobs_task", default=None)


def fetch_result(task_id: str | UUID, alias: str | None = None) -> TaskResult[Any]:
    """Return what is known of a task; TaskNotFound when there is none of this id."""
    store = get_store(alias)
    return TaskResult(_fetch(str(task_id), store.alias), store.alias)


async def afetch_result(
    task_id: str | UUID, alias: str | None = None
) -> TaskResult[Any]:
    """Do as ``fetch_result``, without blocking the event loop."""
    return await sync_to_async(fetch_result)(task_id, alias)


def _fetch_surely(store: Store, key: str) -> TaskRecord | None:
    """Fetch; once more when the server has ended the session, as after a long pause."""
    try:
        return store.fetch(key)
    except (OperationalError, InterfaceError):
        if not replace_if_dead(connections[store.alias]):
            raise
    return store.fetch(key)


def _fetch(task_id: str, alias: str) -> TaskRecord:
    key = canonical(task_id)
    if key is None:
        raise TaskNotFound(
            f"no task has the id {task_id!r:.100}, which is none: write that of a "
            "TaskResult, result.id, a UUID"
        )
    with migrated_store(alias) as store:
        record = _fetch_surely(store, key)
    if record is None:
        raise TaskNotFound(
            f"no task has the id {task_id!r}: its transaction did not commit (yet), "
            "or its result was pruned"
        )
    return record


def state_of(record: TaskRecord) -> State:
    """Return the state of a task; UnknownState when there is no such state."""
    try:
        return State(record.state)
    except ValueError:
        raise UnknownState(
            f"task {record.id} has the state {record.state!r}, which this version does "
            "not know: of a later one, or written by hand?"
        ) from None


@dataclass(frozen=True, slots=True)
class TaskError:
    """An attempt that did not succeed."""

    exception_class_path: str
    message: str
    traceback: str

    @property
    def exception_class(self) -> type[BaseException]:
        """Return the class if its module is loaded; a stored name is never imported."""
        found = _find_loaded(self.exception_class_path)
        if isinstance(found, type) and issubclass(found, BaseException):
            return found
        raise ValueError(f"no exception class here: {self.exception_class_path!r}")


def _find_loaded(path: str) -> object:
    names = path.split(".")
    for length in range(len(names) - 1, 0, -1):
        found: object = sys.modules.get(".".join(names[:length]))
        if found is not None:
            for name in names[length:]:
                found = getattr(found, name, None)
            return found
    return None


class Progress(NamedTuple):
    """How far a running task is, as it said by ``context.progress()``."""

    current: float
    total: float | None = None
    message: str = ""


class Commit:
    """The commit that a task depends on: until then no worker can see it."""

    __slots__ = ("aliases", "is_done")

    def __init__(self) -> None:
        #: The databases whose transactions have to commit.
        self.aliases: tuple[str, ...] = ()
        self.is_done = False

    def is_still_ahead(self) -> bool:
        """Tell whether this thread is inside the transaction that is to commit."""
        if self.is_done:
            return False
        return any(connections[alias].in_atomic_block for alias in self.aliases)


class TaskResult(Generic[R]):
    """A task as it was when it was enqueued, fetched or last refreshed."""

    __slots__ = ("_alias", "_commit", "record")

    def __init__(
        self, record: TaskRecord, alias: str, commit: Commit | None = None
    ) -> None:
        #: Everything that is known, as plain values.
        self.record = record
        self._alias = alias
        self._commit = commit

    def with_record(self, record: TaskRecord) -> TaskResult[R]:
        """Return another result of the same task."""
        return TaskResult(record, self._alias, self._commit)

    @property
    def id(self) -> str:
        return self.record.id

    @property
    def name(self) -> str:
        return self.record.name

    @property
    def queue_name(self) -> str:
        return self.record.queue_name

    @property
    def priority(self) -> int:
        return self.record.priority

    @property
    def status(self) -> State:
        return state_of(self.record)

    @property
    def is_finished(self) -> bool:
        return self.status.is_finished

    @property
    def args(self) -> list[Any]:
        args: list[Any] = loads(self.record.args)
        return args

    @property
    def kwargs(self) -> dict[str, Any]:
        kwargs: dict[str, Any] = loads(self.record.kwargs)
        return kwargs

    @property
    def metadata(self) -> dict[str, Any]:
        metadata: dict[str, Any] = loads(self.record.metadata)
        return metadata

    @property
    def enqueued_at(self) -> datetime | None:
        """None while the insert waits for a commit."""
        return self.record.enqueued_at

    @property
    def run_after(self) -> datetime | None:
        return self.record.run_after

    @property
    def started_at(self) -> datetime | None:
        return self.record.started_at

    @property
    def last_attempted_at(self) -> datetime | None:
        return self.record.last_attempted_at

    @property
    def finished_at(self) -> datetime | None:
        return self.record.finished_at

    @property
    def worker_ids(self) -> list[str]:
        return list(self.record.worker_ids)

    @property
    def attempts(self) -> int:
        return len(self.record.worker_ids)

    @property
    def errors(self) -> list[TaskError]:
        """The unsuccessful attempts, oldest first."""
        return [TaskError(*error[:3]) for error in self.record.errors]

    @property
    def progress(self) -> Progress | None:
        """How far it is; None when it does not run or did not say."""
        text = self.record.progress
        return None if text is None else Progress(**loads(text))

    @property
    def return_value(self) -> R:
        """The value, or the error that says why there is none."""
        value: R = _value_of(self.record)
        return value

    def refresh(self) -> None:
        """Read again what is known of the task."""
        self.record = _fetch(self.id, self._alias)

    async def arefresh(self) -> None:
        await sync_to_async(self.refresh)()

    def revoke(self) -> bool:
        """Stop the task, running or not; False when it is finished already."""
        with migrated_store(self._alias) as store:
            answer = store.revoke([self.id]).get(self.id)
        if answer == "requested":
            store.notify()  # so that the worker looks at once
        self.refresh()
        return answer in ("revoked", "requested")

    async def arevoke(self) -> bool:
        return await sync_to_async(self.revoke)()

    def get(self, timeout: float | timedelta | None = None) -> R:
        """Wait until the task is finished and return its value, or raise its error.

        ResultTimeout comes when it is not finished after ``timeout`` seconds.
        """
        for pause in self._looks(timeout):
            self.refresh()
            if self.is_finished:
                break
            self._refuse_to_wait_in_vain()
            time.sleep(pause)
        return self.return_value

    async def aget(self, timeout: float | timedelta | None = None) -> R:
        """Do as ``get``, without blocking the event loop."""
        for pause in self._looks(timeout):
            await self.arefresh()
            if self.is_finished:
                break
            await sync_to_async(self._refuse_to_wait_in_vain)()
            await asyncio.sleep(pause)
        return self.return_value

    def _looks(self, timeout: float | timedelta | None) -> Iterator[float]:
        """Yield before each look the pause that is to follow it; raise in the end."""
        if self.is_finished:
            return
        _warn_inside_task()
        start, pause = time.monotonic(), _FIRST_PAUSE
        limit = math.inf if timeout is None else seconds(timeout)
        while (left := start + limit - time.monotonic()) > 0 or pause == _FIRST_PAUSE:
            yield max(min(pause, left), 0.0)
            pause = min(pause * _PAUSE_GROWTH, _LONGEST_PAUSE)
        yield 0.0  # a last look, after the last pause
        raise ResultTimeout(too_late(self.record, limit))

    def _refuse_to_wait_in_vain(self) -> None:
        if self._commit is not None and self._commit.is_still_ahead():
            raise ResultError(
                f"task {self} was enqueued in the transaction that is open here: no "
                "worker sees it before the commit; call get() after the transaction"
            )
        store = get_store(self._alias)
        if store.has_single_writer and connections[store.alias].in_atomic_block:
            raise ResultError(
                f"get() waits for task {self} inside a transaction that may keep the "
                "worker from writing the result; call it after the transaction"
            )

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> NoReturn:
            """Say what to write in place of what the results of others can do."""
            raise missing(self, name, instead_of_result(name))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, TaskResult):
            return NotImplemented
        return _content(self.record) == _content(other.record)

    def __hash__(self) -> int:
        return hash(self.id)

    def __str__(self) -> str:
        return f"{self.name} {self.id}"

    def __repr__(self) -> str:
        return f"<TaskResult {self} {self.record.state}>"


def _content(record: TaskRecord) -> TaskRecord:
    """Leave out what only says how and when the task is to run."""
    return record._replace(
        max_attempts=0,
        run_after=None,
        attempt=0,
        crashes=0,
        revoke_requested=False,
        progress=None,
    )


def _value_of(record: TaskRecord) -> Any:
    if record.state == State.SUCCESSFUL:
        return None if record.return_value is None else loads(record.return_value)
    task = f"{record.name} {record.id}"
    if record.state == State.FAILED:
        raise _failure(record, task)
    if record.state == State.REVOKED:
        raise TaskRevoked(f"task {task} was revoked")
    if record.state == State.EXPIRED:
        raise TaskExpired(f"task {task} expired before it was started")
    raise ResultError(f"task {task} is not finished yet, it is {record.state}")


def _failure(record: TaskRecord, task: str) -> TaskFailed:
    words = f"task {task} failed: {record.reason}"
    if not record.errors:
        return TaskFailed(words)
    last = record.errors[-1]
    return TaskFailed(
        f"{words}; {last.exception_class}: {last.message}",
        exception_class_path=last.exception_class,
        traceback=last.traceback,
    )


def _warn_inside_task() -> None:
    if running_task.get() is not None:
        warnings.warn(
            "a task that waits for another one keeps a place of the worker busy: when "
            "all places wait, nobody is left to do the work",
            RuntimeWarning,
            stacklevel=4,
        )
