"""``JobsTaskContext``: Django's ``TaskContext`` with what ours can do."""

from __future__ import annotations

from typing import Any

from django.utils.functional import cached_property

from django_jobs.backend.api import TaskContext as DjangoTaskContext
from django_jobs.backend.results import (
    OWN_KEY,
    RESERVED_PREFIX,
    JobsTaskResult,
    visible,
)
from django_jobs.backend.running import running_result
from django_jobs.backend.values import plain
from django_jobs.context import TaskContext


class JobsTaskContext(DjangoTaskContext):  # type: ignore[type-arg] # as in Django 6
    """What a running task may know of itself and tell the outside."""

    running: TaskContext

    def __init__(self, running: TaskContext) -> None:
        # Not an assignment: the base is frozen, and its own way round that is broken.
        object.__setattr__(self, "running", running)

    # Made when it is asked for, and only once.
    @cached_property
    def task_result(self) -> JobsTaskResult:  # type: ignore[override]
        result = running_result(self.running)
        self._show_metadata(result)
        return result

    @property
    def attempt(self) -> int:
        return self.running.attempt

    @property
    def idempotency_key(self) -> str:
        """The task's id: it is the same in every attempt."""
        return self.running.idempotency_key

    @cached_property
    def metadata(self) -> dict[str, Any]:
        """A dict of the task's own; changes are saved with the end of the run."""
        return visible(self.running.metadata)

    @property
    def metadata_modified(self) -> bool:
        return self.metadata != visible(self.running.metadata)

    def save_metadata(self) -> None:
        """Write the metadata now, for others to see."""
        self.hand_over()
        self.running.save_metadata()
        self._show_saved()

    async def asave_metadata(self) -> None:
        self.hand_over()
        await self.running.asave_metadata()
        self._show_saved()

    def progress(
        self, current: float, total: float | None = None, message: str = ""
    ) -> None:
        """Write how far the task is, for others to see."""
        self.running.progress(current, total, message)

    async def aprogress(
        self, current: float, total: float | None = None, message: str = ""
    ) -> None:
        await self.running.aprogress(current, total, message)

    def remaining(self) -> float:
        """Return the seconds until the limit of time, infinite without one."""
        return self.running.remaining()

    def should_stop(self) -> bool:
        """Tell a loop that it is time to leave: interrupted, or out of time."""
        return self.running.should_stop()

    def hand_over(self) -> None:
        """Put the changes where the worker looks for them; TypeError if no JSON."""
        if "metadata" not in self.__dict__ or not self.metadata_modified:
            return
        changed = visible(plain(self.metadata))
        reserved = {
            key: value
            for key, value in self.running.metadata.items()
            if key.startswith(RESERVED_PREFIX)
        }
        self.running.metadata = changed | reserved

    def _show_saved(self) -> None:
        if "task_result" in self.__dict__:
            self._show_metadata(self.task_result)

    def _show_metadata(self, result: JobsTaskResult) -> None:
        """Let the result show the metadata of now, not that of the run's start."""
        metadata = {**self.running.metadata}
        metadata.pop(OWN_KEY, None)
        object.__setattr__(result, "raw_metadata", metadata)

    def __repr__(self) -> str:
        return f"<JobsTaskContext {self.running.claimed.name} {self.idempotency_key}>"
