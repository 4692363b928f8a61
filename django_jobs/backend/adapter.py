"""``JobsBackend``: the methods that Django's tasks call."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from django.core.checks import CheckMessage

from django_jobs import exceptions, producer
from django_jobs.backend.api import (
    AnyTask,
    BaseTaskBackend,
    InvalidTask,
    TaskResultDoesNotExist,
    task_enqueued,
)
from django_jobs.backend.bridge import BackendDefinition, definition_of
from django_jobs.backend.results import JobsTaskResult, as_task_result
from django_jobs.backend.tasks import JobsTask
from django_jobs.backend.values import plain_arguments
from django_jobs.backend_settings import check_backend
from django_jobs.results import fetch_result


class JobsBackend(BaseTaskBackend):
    """Enqueues tasks of Django's decorator for ``manage.py jobworker``.

    OPTIONS, all of them optional:

    DATABASE           alias of the database of the queue
    MAX_ATTEMPTS       of tasks that declare none; 1 by default, since a task of
                       Django's contract that raised has failed
    ENQUEUE_ON_COMMIT  True inserts at the end of the caller's transaction
    MODULES            modules with tasks that are not in the ``tasks`` of an app

    ``task_enqueued`` is sent by ``enqueue()`` itself, as all of Django's backends do;
    that of ``django_jobs.signals`` comes after the commit.
    """

    task_class = JobsTask
    supports_defer = True
    supports_async_task = True
    supports_get_result = True
    supports_priority = True
    supports_metadata = True

    def __init__(self, alias: str, params: dict[str, Any]) -> None:
        super().__init__(alias, params)
        #: The setting as it was given, for the system check.
        self.given_queues = params.get("QUEUES", [])

    @property
    def database(self) -> str | None:
        """The alias of the queue's database, None for what ``DJANGO_JOBS`` says."""
        return self.options.get("DATABASE")

    @property
    def max_attempts(self) -> int:
        return self.options.get("MAX_ATTEMPTS") or 1

    def validate_task(self, task: AnyTask) -> None:
        """Refuse with InvalidTask what cannot run; make known to workers what can."""
        super().validate_task(task)
        self._prepared(task)

    def enqueue(  # type: ignore[override] # the stubs have a generic Task
        self, task: AnyTask, args: Any, kwargs: Any
    ) -> JobsTaskResult:
        """Put a task in the queue, in the caller's transaction if there is one."""
        self.validate_task(task)
        definition = self._prepared(task)
        try:
            name = definition.name
            producer.check_reachable(name, definition.func)
            new = definition.new_task(
                plain_arguments(name, "args", list(args)),
                plain_arguments(name, "kwargs", dict(kwargs)),
            )
        except (exceptions.UnknownQueue, exceptions.UnreachableTask) as error:
            raise InvalidTask(str(error)) from error
        on_commit = definition.chosen.on_commit
        if on_commit is None:
            on_commit = self.options.get("ENQUEUE_ON_COMMIT")
        results = producer.enqueue([new], [definition.origin], on_commit, self.database)
        task_result = as_task_result(results[0].record, task)
        task_enqueued.send_robust(type(self), task_result=task_result)
        return task_result

    def get_result(self, result_id: str) -> JobsTaskResult:
        """Return what is known of a task; TaskResultDoesNotExist when nothing is."""
        try:
            result = fetch_result(result_id, self.database)
        except exceptions.TaskNotFound:
            raise TaskResultDoesNotExist(result_id) from None
        return as_task_result(result.record)

    def load_modules(self) -> None:
        """Import the modules of OPTIONS, so that their tasks are known."""
        for name in self.options.get("MODULES", ()):
            import_module(name)

    def check(self, **kwargs: Any) -> list[CheckMessage]:
        """Return what is wrong with the settings of this alias."""
        problems = super().check(**kwargs)
        return [*problems, *check_backend(self.alias, self.given_queues, self.options)]

    def _prepared(self, task: AnyTask) -> BackendDefinition:
        """Return the definition with the options of the task; remembered per task."""
        memory = getattr(task, "__dict__", {})  # Django's own class has slots
        remembered: tuple[object, BackendDefinition] | None = memory.get("_prepared")
        if remembered is not None and remembered[0] is self:
            return remembered[1]
        try:
            definition = definition_of(task, self.max_attempts)
            prepared = definition.chosen_by(task, self.max_attempts)
        except (exceptions.InvalidTask, ValueError) as error:
            raise InvalidTask(str(error)) from error
        memory["_prepared"] = (self, prepared)
        return prepared
