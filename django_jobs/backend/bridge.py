"""A task of Django's decorator as a definition of ours, in the one registry of both."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, cast

from django_jobs.backend.api import AnyTask
from django_jobs.backend.contexts import JobsTaskContext
from django_jobs.backend.known import loaded_task, remember
from django_jobs.backend.relay import Relay
from django_jobs.backend.results import OWN_KEY
from django_jobs.backend.tasks import chosen_options, declared_options
from django_jobs.backend.values import plain
from django_jobs.context import TaskContext
from django_jobs.decorators import check_fit
from django_jobs.definitions import (
    TaskDefinition,
    find_definition,
    finders,
    register,
)
from django_jobs.options import NAME_LENGTH, read_task_options

#: Options that ``using()`` may change; each task in the queue has its own of them.
_CHANGEABLE = ("priority", "queue_name", "max_attempts", "time_limit", "expires")


class BackendDefinition(TaskDefinition[Any, Any]):
    """What the worker runs of a task that was declared with Django's decorator."""

    listener = Relay()

    def __init__(self, task: AnyTask, max_attempts: int) -> None:
        if len(task.module_path) > NAME_LENGTH:
            raise ValueError(f"its path is longer than {NAME_LENGTH} characters.")
        given = declared_options(task)
        if given.get("max_attempts") is None:
            given["max_attempts"] = max_attempts
        given["priority"] = int(task.priority)
        options = read_task_options(given)
        check_fit(task.func, options)
        super().__init__(task.func, options)
        self.task = task

    def chosen_by(self, task: AnyTask, max_attempts: int) -> BackendDefinition:
        """Return a copy that enqueues with the options of a copy by ``using()``."""
        options = chosen_options(task)
        metadata = dict(options.pop("metadata", {}))
        if differing := _difference(options, chosen_options(self.task)):
            metadata[OWN_KEY] = differing
        if (delay := options.pop("_delay", None)) is not None:
            options["run_after"] = delay
        if options.get("max_attempts") is None:
            options["max_attempts"] = max_attempts
        del options["backend"]
        copy = self.using(
            **options,
            priority=int(task.priority),
            queue_name=task.queue_name,
            metadata=metadata or None,
        )
        return cast(BackendDefinition, copy)

    def run(self, context: TaskContext) -> Any:
        """Call the function by Django's rules for contexts."""
        if self.is_async:
            return self._run_async(context)
        if not self.takes_context:
            return super().run(context)
        own = JobsTaskContext(context)
        with _handed_over(own):
            return self.func(own, *context.args, **context.kwargs)

    async def _run_async(self, context: TaskContext) -> Any:
        if not self.takes_context:
            return await super().run(context)
        await context.atask_result()  # the loop must not ask the database itself
        own = JobsTaskContext(context)
        with _handed_over(own):
            return await self.func(own, *context.args, **context.kwargs)

    def to_store(self, value: Any) -> Any:
        return plain(value)


def _difference(options: dict[str, Any], declared: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value
        for name, value in options.items()
        if name not in declared or declared[name] != value
    }


@contextmanager
def _handed_over(own: JobsTaskContext) -> Iterator[None]:
    """Hand changed metadata over to the worker, whatever the run comes to."""
    try:
        yield
    except BaseException:
        with suppress(TypeError, ValueError):  # the task's own error says more
            own.hand_over()
        raise
    own.hand_over()


# -- registration ------------------------------------------------------------------


def definition_of(task: AnyTask, max_attempts: int) -> BackendDefinition:
    """Return the registered definition of a task; a new declaration replaces it."""
    known = find_definition(task.module_path)
    if isinstance(known, BackendDefinition) and _is_copy(task, known.task):
        return known
    declared = loaded_task(task.module_path)
    if declared is None or not _is_copy(task, declared):
        declared = task
    return _declare(declared, max_attempts)


def _declare(task: AnyTask, max_attempts: int = 1) -> BackendDefinition:
    definition = BackendDefinition(task, max_attempts)
    register(definition)
    remember(task)
    return definition


def _is_copy(task: AnyTask, declared: AnyTask) -> bool:
    """Tell whether ``using()`` can have made the one of the other."""
    return _fixed(task) == _fixed(declared)


def _fixed(task: AnyTask) -> dict[str, Any]:
    options = declared_options(task)
    fixed = {name: value for name, value in options.items() if name not in _CHANGEABLE}
    return fixed | {"func": task.func}


def _find(name: str) -> BackendDefinition | None:
    """Return a task that is loaded here, but was declared for another backend."""
    task = loaded_task(name)
    return None if task is None else _declare(task)


finders.append(_find)
