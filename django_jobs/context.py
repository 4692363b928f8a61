"""The current task inside a task: what it may know of itself and tell the outside."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from asgiref.sync import sync_to_async
from django.utils.functional import cached_property

from django_jobs.conf import conf
from django_jobs.exceptions import InvalidResult, StaleLease
from django_jobs.records import ClaimedTask, Outcome
from django_jobs.results import TaskResult, fetch_result, running_task
from django_jobs.serializers import dumps, loads
from django_jobs.store.tables import migrated_store

T = TypeVar("T")

_JSON_NAMES: dict[type, str] = {list: "array", dict: "object"}


def current_context() -> TaskContext | None:
    """Return the context of the task that runs here, None outside of tasks."""
    context = running_task.get()
    return context if isinstance(context, TaskContext) else None


class TaskContext:
    """What a running task may know of itself and tell the outside.

    With ``@task(takes_context=True)`` it is the first argument; ``current_context()``
    returns it anywhere in a task. Without ``worker_id`` nothing is written: the
    function was called directly.
    """

    def __init__(
        self,
        claimed: ClaimedTask,
        worker_id: str,
        deadline: float | None = None,
        alias: str | None = None,
    ) -> None:
        self.claimed = claimed
        self.worker_id = worker_id
        #: By ``time.monotonic()``; None without a limit of time.
        self.deadline = deadline
        self._alias = alias
        #: Asked to stop since the task is revoked.
        self.is_revoked = False
        self._stops = False

    @property
    def attempt(self) -> int:
        """The number of this run, from 1."""
        return self.claimed.attempt

    @property
    def idempotency_key(self) -> str:
        """The task's id: it is the same in every attempt."""
        return self.claimed.id

    @cached_property
    def args(self) -> list[Any]:
        return _read("args", self.claimed.args, list, loads)

    @cached_property
    def kwargs(self) -> dict[str, Any]:
        return _read("kwargs", self.claimed.kwargs, dict, loads)

    @cached_property
    def headers(self) -> dict[str, Any]:
        return _read("headers", self.claimed.headers, dict, json.loads)

    @cached_property
    def metadata(self) -> dict[str, Any]:
        """A dict of the task's own; changes are saved with the end of the run."""
        return _read("metadata", self.claimed.metadata, dict, loads)

    @cached_property
    def task_result(self) -> TaskResult[Any]:
        return fetch_result(self.claimed.id, self._alias)

    async def atask_result(self) -> TaskResult[Any]:
        return await sync_to_async(lambda: self.task_result)()

    def changed_metadata(self) -> str | None:
        """Return the metadata as JSON if the task changed it since the claim.

        InvalidResult when it is longer than ``PAYLOAD_MAX_BYTES``.
        """
        return self._metadata_text() if "metadata" in self.__dict__ else None

    def save_metadata(self) -> None:
        """Write the metadata now, for others to see; InvalidResult if too long."""
        self._save(metadata=self._metadata_text() or self.claimed.metadata)

    async def asave_metadata(self) -> None:
        await sync_to_async(self.save_metadata)()

    def progress(
        self, current: float, total: float | None = None, message: str = ""
    ) -> None:
        """Write how far the task is, for others to see; InvalidResult if too long."""
        words = {"current": current, "total": total, "message": str(message)}
        self._save(progress=_short_enough("progress", dumps(words, path="progress")))

    async def aprogress(
        self, current: float, total: float | None = None, message: str = ""
    ) -> None:
        await sync_to_async(self.progress)(current, total, message)

    def remaining(self) -> float:
        """Return the seconds until the limit of time, infinite without one."""
        return math.inf if self.deadline is None else self.deadline - time.monotonic()

    def should_stop(self) -> bool:
        """Tell a loop that it is time to leave: interrupted, or out of time."""
        return self._stops or self.remaining() <= 0

    def stop(self) -> None:
        """Make ``should_stop`` true; called by the worker that interrupts the task."""
        self._stops = True

    @contextmanager
    def active(self) -> Iterator[None]:
        """Be the current context inside the block."""
        token = running_task.set(self)
        try:
            yield
        finally:
            running_task.reset(token)

    def _metadata_text(self) -> str | None:
        """Return the metadata as JSON, None if it is that of the claim."""
        if not isinstance(self.metadata, dict):
            raise TypeError("the metadata of a task is a dict")
        depth = conf().PAYLOAD_MAX_DEPTH
        text = dumps(self.metadata, path="metadata", max_depth=depth)
        # What the row holds already is no news, even if the limit is lower by now.
        if text == self.claimed.metadata:
            return None
        return _short_enough("metadata", text)

    def _save(
        self, *, metadata: str | None = None, progress: str | None = None
    ) -> None:
        if not self.worker_id:
            return
        task = self.claimed
        with migrated_store(self._alias) as store:
            is_ours = store.save_metadata(
                self.worker_id,
                task.id,
                task.lease,
                metadata=metadata,
                progress=progress,
            )
        if not is_ours:
            raise StaleLease(f"task {task.name} {task.id} lost its lease")


def _read(column: str, text: str, kind: type[T], read: Callable[[str], Any]) -> T:
    """Return what a column of the row holds; ValueError when that is not of its kind.

    The function would be called with the characters of a text, or the keys of a dict.
    """
    try:
        value = read(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the column {column} cannot be read: {error}") from error
    if isinstance(value, kind):
        return value
    raise ValueError(
        f"the column {column} holds no JSON {_JSON_NAMES[kind]}: {text:.60}"
    )


def _short_enough(what: str, text: str) -> str:
    """Return the JSON; InvalidResult, after which there is no retry, if it is too long.

    What is too long for the database's packets would not even become an error.
    """
    if len(text) > (most := conf().PAYLOAD_MAX_BYTES):
        raise InvalidResult(
            f"{what} has {len(text)} bytes of JSON, over PAYLOAD_MAX_BYTES ({most}); "
            "store it elsewhere and keep its key"
        )
    return text


class Listener(Protocol):
    """Who is told of the runs of a definition, beside the receivers of signals."""

    def started(self, context: TaskContext) -> None: ...

    def finished(self, context: TaskContext, outcome: Outcome) -> None: ...
