"""``JobsTaskResult``: what the queue knows, in the words of Django's tasks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.conf import settings
from django.utils import timezone

from django_jobs.backend.api import (
    TASK_REFRESH_ATTRS,
    AnyResult,
    AnyTask,
    TaskError,
    TaskResult,
    TaskResultDoesNotExist,
    TaskResultStatus,
)
from django_jobs.backend.known import find_task
from django_jobs.backend.tasks import copy_with
from django_jobs.exceptions import TaskExpired, TaskFailed, TaskRevoked
from django_jobs.hints import instead_of_result, missing
from django_jobs.records import ClaimedTask, TaskRecord
from django_jobs.results import state_of
from django_jobs.serializers import loads
from django_jobs.states import State
from django_jobs.tracebacks import class_path

#: Our own entry in a task's metadata: in which options it differs from its declaration.
OWN_KEY = "_django_jobs"
#: Keys that begin with it are not shown to users.
RESERVED_PREFIX = "_"

_STATUSES = {
    State.READY: TaskResultStatus.READY,
    State.SCHEDULED: TaskResultStatus.READY,
    State.BLOCKED: TaskResultStatus.READY,
    State.RUNNING: TaskResultStatus.RUNNING,
    State.SUCCESSFUL: TaskResultStatus.SUCCESSFUL,
    State.FAILED: TaskResultStatus.FAILED,
    State.REVOKED: TaskResultStatus.FAILED,
    State.EXPIRED: TaskResultStatus.FAILED,
}
#: The fields that only the database knows.
_TIMES = {"enqueued_at", "started_at", "last_attempted_at", "finished_at"}
#: Gets them.
Times = Callable[[], dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobsTaskResult(TaskResult):  # type: ignore[misc,type-arg]
    """A task as it was when it was enqueued, fetched or last refreshed."""

    #: With the reserved keys that ``metadata`` leaves out.
    raw_metadata: dict[str, Any] = field(default_factory=dict)
    # Where the times come from, when they are not there yet; see ``running``.
    _times: Times | None = field(init=False, default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Take what comes out of JSON as it is, without normalising it again."""

    def __getattr__(self, name: str) -> Any:
        """Get the times when somebody looks; only what is missing comes here."""
        if name in ("get", "aget"):
            raise AttributeError(
                f"a result of Django's tasks has no {name}(); write "
                f"django_jobs.fetch_result(result.id).{name}(timeout=10)",
                name=name,
                obj=self,
            )
        if name not in _TIMES or (times := self._times) is None:
            raise missing(self, name, _instead_of(name))
        for key, value in times().items():
            object.__setattr__(self, key, value)
        object.__setattr__(self, "_times", None)
        return getattr(self, name)

    @property
    def metadata(self) -> dict[str, Any]:
        """The metadata without reserved keys, a copy."""
        return visible(self.raw_metadata)

    def refresh(self) -> None:
        self._take(self.task.get_backend().get_result(self.id))

    async def arefresh(self) -> None:
        self._take(await self.task.get_backend().aget_result(self.id))

    def _take(self, fresh: AnyResult) -> None:
        for name in (*TASK_REFRESH_ATTRS, "raw_metadata"):
            object.__setattr__(self, name, getattr(fresh, name))


def _instead_of(attribute: str) -> str:
    """Return what to write instead of an attribute of other results."""
    ours = instead_of_result(attribute).replace("State.", "TaskResultStatus.")
    for method in ("get(", "revoke("):  # those of ours alone
        ours = ours.replace(
            f"result.{method}", f"django_jobs.fetch_result(result.id).{method}"
        )
    return ours


def visible(metadata: dict[str, Any]) -> dict[str, Any]:
    """Return what of the metadata is the user's."""
    return {
        key: value
        for key, value in metadata.items()
        if not key.startswith(RESERVED_PREFIX)
    }


def as_task_result(record: TaskRecord, task: AnyTask | None = None) -> JobsTaskResult:
    """Return a record in Django's words; ``task`` is what was enqueued, if at hand."""
    if task is None:
        task, metadata = task_of(record, record.metadata)
    else:
        metadata = _parted(record.metadata)[1]
    result = JobsTaskResult(
        task=task,
        id=record.id,
        status=_STATUSES[state_of(record)],
        enqueued_at=_moment(record.enqueued_at),
        started_at=_moment(record.started_at),
        finished_at=_moment(record.finished_at),
        last_attempted_at=_moment(record.last_attempted_at),
        args=loads(record.args),
        kwargs=loads(record.kwargs),
        backend=task.backend,
        errors=_errors_of(record),
        worker_ids=list(record.worker_ids),
        raw_metadata=metadata,
    )
    if record.return_value is not None:
        object.__setattr__(result, "_return_value", loads(record.return_value))
    return result


def task_of(row: TaskRecord | ClaimedTask, text: str) -> tuple[AnyTask, dict[str, Any]]:
    """Return the task that was enqueued, and its metadata from their JSON."""
    declared = find_task(row.name)
    if declared is None:
        raise TaskResultDoesNotExist(
            f"{row.id}: no task {row.name} of Django's decorator is loaded here"
        )
    chosen, metadata = _parted(text)
    shown = {"priority": row.priority, "queue_name": row.queue_name}
    return copy_with(declared, {"metadata": metadata, **shown, **chosen}), metadata


def _parted(text: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return our own entry of the metadata, and the rest."""
    metadata: dict[str, Any] = loads(text)
    return metadata.pop(OWN_KEY, {}), metadata


def _moment(value: datetime | None) -> datetime | None:
    """Return the time as Django shows times, naive without ``USE_TZ``."""
    if value is None or settings.USE_TZ:
        return value
    return timezone.make_naive(value, timezone.get_default_timezone())


def _errors_of(record: TaskRecord) -> list[TaskError]:
    errors = [
        TaskError(exception_class_path=error.exception_class, traceback=error.traceback)
        for error in record.errors
    ]
    if record.state == State.REVOKED:
        errors.append(_own_error(TaskRevoked, "the task was revoked"))
    elif record.state == State.EXPIRED:
        errors.append(_own_error(TaskExpired, "it expired before it was started"))
    elif record.state == State.FAILED and not errors:
        errors.append(_own_error(TaskFailed, record.reason))
    return errors


def _own_error(cls: type[Exception], words: str) -> TaskError:
    path = class_path(cls)
    return TaskError(exception_class_path=path, traceback=f"{path}: {words}\n")
