"""What ``@task`` makes of a function, and the registry of definitions by name."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import (
    TYPE_CHECKING,
    Any,
    Generic,
    NoReturn,
    ParamSpec,
    TypeVar,
    Unpack,
    cast,
)
from uuid import UUID

from asgiref.sync import iscoroutinefunction, sync_to_async

from django_jobs import calling, producer
from django_jobs.conf import conf
from django_jobs.context import Listener, TaskContext
from django_jobs.exceptions import (
    EnqueueError,
    InvalidArguments,
    InvalidOption,
    InvalidTask,
    TaskNotFound,
    UnknownTask,
)
from django_jobs.hints import absent, instead_of, instead_of_call, missing
from django_jobs.ids import uuid7
from django_jobs.options import (
    EnqueueOptions,
    TaskOptions,
    Unset,
    UsingOptions,
    did_you_mean,
    read_enqueue_options,
    refuse_nonsense,
)
from django_jobs.parameters import Parameters
from django_jobs.records import NewTask
from django_jobs.results import TaskResult, fetch_result
from django_jobs.retries import RetryPolicy, policy_or_default
from django_jobs.summaries import summarise

P = ParamSpec("P")
R = TypeVar("R")


class TaskDefinition(Generic[P, R]):
    """A function that can be enqueued, with the options that hold for its tasks."""

    listener: Listener | None = None

    def __init__(
        self,
        func: Callable[..., Any],
        options: TaskOptions,
    ) -> None:
        self.func = func
        self.name = options.name or path_of(func)
        #: What ``@task`` was given, and what ``using()`` was.
        self.options = options
        self.chosen = EnqueueOptions()
        #: The one that was declared; copies by ``using()`` refer to it.
        self.origin: TaskDefinition[P, R] = self
        self.parameters = Parameters(func, skip_first=options.takes_context)
        self.is_async = iscoroutinefunction(func)
        self.backoff = options.backoff
        self.retry_on = options.retry_on
        self.give_up_on = options.give_up_on
        self.expires = options.expires
        self.atomic = options.atomic
        self.store_result = options.store_result
        self.takes_context = options.takes_context
        self.sensitive = options.sensitive

    @property
    def module_path(self) -> str:
        return path_of(self.func)

    @property
    def priority(self) -> int:
        chosen = self.chosen.priority
        return self.options.priority if chosen is None else chosen

    @property
    def queue_name(self) -> str:
        chosen = self.chosen.queue_name or self.options.queue_name
        return chosen or conf().DEFAULT_QUEUE

    @property
    def max_attempts(self) -> int:
        chosen = self.chosen.max_attempts or self.options.max_attempts
        return chosen or conf().MAX_ATTEMPTS

    @property
    def time_limit(self) -> float | None:
        return self.chosen.time_limit or self.options.time_limit or conf().TIME_LIMIT

    @property
    def soft_time_limit(self) -> float | None:
        return self.options.soft_time_limit or conf().SOFT_TIME_LIMIT

    @property
    def result_retention(self) -> float | None:
        """Seconds to keep the result, None for ever."""
        declared = self.options.result_retention
        return conf().RESULT_RETENTION if isinstance(declared, Unset) else declared

    @property
    def policy(self) -> RetryPolicy:
        """When a failed attempt is followed by another one."""
        policy = self.backoff
        if not isinstance(policy, RetryPolicy):
            base, cap = conf().BACKOFF_BASE, conf().BACKOFF_CAP
            policy = policy_or_default(base, cap, policy)
        return policy.and_only(self.retry_on, self.give_up_on)

    # -- enqueueing ----------------------------------------------------------------

    def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> TaskResult[R]:
        """Put a task in the queue; what cannot run is refused before any SQL."""
        return self.s(*args, **kwargs).enqueue()

    async def aenqueue(self, *args: P.args, **kwargs: P.kwargs) -> TaskResult[R]:
        """Do as ``enqueue``, without blocking the event loop."""
        return await self.s(*args, **kwargs).aenqueue()

    def s(self, *args: P.args, **kwargs: P.kwargs) -> Signature[R]:
        """Return a call of the task, not yet enqueued."""
        return Signature(self, args, kwargs)

    def using(self, **options: Unpack[UsingOptions]) -> TaskDefinition[P, R]:
        """Return a copy that enqueues with other options; None leaves one as it is.

        Seconds and timedeltas of ``run_after`` count from the insert, those of
        ``expires`` from the time due.
        """
        try:
            chosen = replace(self.chosen, **read_enqueue_options(options))
            refuse_nonsense(chosen, self.options.soft_time_limit)
        except EnqueueError:
            raise
        except ValueError as error:
            raise InvalidOption(f"task {self.name}: {error}") from None
        return self.with_chosen(chosen)

    def with_chosen(self, chosen: EnqueueOptions) -> TaskDefinition[P, R]:
        """Return a copy with these options, which are checked already."""
        copy: TaskDefinition[P, R] = object.__new__(type(self))
        copy.__dict__.update(self.__dict__, chosen=chosen)
        return copy

    def new_task(self, args: Sequence[Any], kwargs: dict[str, Any]) -> NewTask:
        """Return the task that a call makes, or refuse the call."""
        queue_name = self.queue_name
        producer.check_queue(queue_name)
        if (misfit := self.parameters.misfit(args, kwargs)) is not None:
            signature = self.parameters.signature
            raise InvalidArguments(f"task {self.name}{signature}: {misfit}")
        args_text, kwargs_text = producer.payload(self.name, args, kwargs)
        sensitive: bool | Collection[int | str] = self.sensitive
        if not isinstance(self.sensitive, bool):
            sensitive = self.parameters.places(self.sensitive, args, kwargs)
        due, expiry = self.chosen.run_after, self._expiry()
        return NewTask(
            id=str(uuid7()),
            name=self.name,
            queue_name=queue_name,
            priority=self.priority,
            args=args_text,
            kwargs=kwargs_text,
            summary=summarise(args, kwargs, sensitive),
            max_attempts=self.max_attempts,
            run_after=due if isinstance(due, datetime) else None,
            delay=None if isinstance(due, datetime) else due,
            expires=expiry if isinstance(expiry, datetime) else None,
            expires_in=None if isinstance(expiry, datetime) else expiry,
            time_limit=self.chosen.time_limit,
            metadata=self.chosen.metadata,
        )

    def _expiry(self) -> datetime | float | None:
        expiry = self.chosen.expires
        if expiry is None:
            expiry = self.options.expires
        if isinstance(expiry, float):
            if isinstance(due := self.chosen.run_after, datetime):
                return due + timedelta(seconds=expiry)
            return expiry + (due or 0.0)
        return expiry

    # -- results and direct calls --------------------------------------------------

    def get_result(self, task_id: str | UUID) -> TaskResult[R]:
        """Return the result of a task of this definition, else TaskNotFound."""
        result = fetch_result(task_id)
        if result.name != self.name:
            raise TaskNotFound(
                f"the task {task_id} is one of {result.name}, not of {self.name}"
            )
        return result

    async def aget_result(self, task_id: str | UUID) -> TaskResult[R]:
        return await sync_to_async(self.get_result)(task_id)

    def call(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function here and now, without the queue; in a transaction if atomic.

        The transaction is on the queue's database.
        """
        return cast(R, calling.call(self._direct(args, kwargs)))

    async def acall(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Do as ``call``, without blocking the event loop."""
        return cast(R, await calling.acall(self._direct(args, kwargs)))

    def run(self, context: TaskContext) -> Any:
        """Call the function with the arguments of a claimed task."""
        first = (context,) if self.takes_context else ()
        return self.func(*first, *context.args, **context.kwargs)

    def to_store(self, value: Any) -> Any:
        """Return what the result keeps of a return value; raise when it may not."""
        return value

    def _direct(self, args: Any, kwargs: Any) -> calling.Call:
        first = args
        if self.takes_context:
            first = (calling.context_of(self.new_task(args, kwargs)), *args)
        return calling.Call(self.func, first, kwargs, calling.alias_of(self.atomic))

    def __call__(self, *args: object, **kwargs: object) -> NoReturn:
        name = self.func.__name__
        raise TypeError(
            f"the task {self.name} is not called itself: write {name}.enqueue(...) to "
            f"run it in a worker, or {name}.call(...) to run it here"
        )

    if not TYPE_CHECKING:  # a type checker is to find them by itself

        def __getattr__(self, name: str) -> NoReturn:
            """Say what to write in place of what the tasks of others can do."""
            func = self.__dict__.get("func")
            ours = "" if func is None else instead_of(name, func.__name__)
            raise missing(self, name, ours)

    def __repr__(self) -> str:
        return f"<TaskDefinition {self.name}>"

    def __reduce__(self) -> Any:
        """Pickle as the name: the function is the other side's own."""
        return _restore, (self.name, self.chosen)


def _restore(name: str, chosen: EnqueueOptions) -> TaskDefinition[..., Any]:
    definition = get_definition(name)
    return definition.with_chosen(chosen)


@dataclass(frozen=True, slots=True)
class Signature(Generic[R]):
    """A call of a task: definition, options and arguments, not yet enqueued."""

    definition: TaskDefinition[..., R]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def enqueue(self) -> TaskResult[R]:
        return enqueue_many([self])[0]

    async def aenqueue(self) -> TaskResult[R]:
        return (await aenqueue_many([self]))[0]

    def using(self, **options: Any) -> Signature[R]:
        """Return the same call with options of ``TaskDefinition.using``."""
        return replace(self, definition=self.definition.using(**options))

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> NoReturn:
            raise missing(self, name, instead_of_call(name))

        def __or__(self, other: object) -> NoReturn:
            raise TypeError(f"calls of tasks cannot be joined by |: {absent('chain')}")


def enqueue_many(signatures: Iterable[Signature[R]]) -> list[TaskResult[R]]:
    """Enqueue calls of any tasks with one insert; all are refused if one is."""
    if isinstance(signatures, Signature | TaskDefinition):
        raise TypeError(_NOT_A_LIST)
    groups: dict[bool | str | None, list[int]] = {}
    tasks, senders = [], []
    for place, signature in enumerate(signatures):
        definition = _definition_of(signature)
        producer.check_reachable(definition.name, definition.func)
        tasks.append(definition.new_task(signature.args, signature.kwargs))
        senders.append(definition.origin)
        groups.setdefault(definition.chosen.on_commit, []).append(place)
    results: dict[int, TaskResult[Any]] = {}
    for on_commit, places in groups.items():
        made = producer.enqueue(
            [tasks[place] for place in places],
            [senders[place] for place in places],
            on_commit,
        )
        results.update(zip(places, made, strict=True))
    return [results[place] for place in range(len(tasks))]


async def aenqueue_many(signatures: Iterable[Signature[R]]) -> list[TaskResult[R]]:
    """Do as ``enqueue_many``, without blocking the event loop."""
    return await sync_to_async(enqueue_many)(signatures)


_NOT_A_LIST = (
    "enqueue_many() takes a list of calls: write enqueue_many([task.s(1), task.s(2)])"
)


def _definition_of(signature: object) -> TaskDefinition[..., Any]:
    if isinstance(signature, Signature):
        return signature.definition
    raise TypeError(
        f"enqueue_many() takes calls of tasks, written as task.s(...), "
        f"not {signature!r:.100}"
    )


# -- the registry ------------------------------------------------------------------

_definitions: dict[str, TaskDefinition[..., Any]] = {}
_lock = threading.Lock()
#: Asked in turn for a name that is not registered: the door for other decorators.
#: What they return is registered; a stored name must not make them import anything.
finders: list[Callable[[str], TaskDefinition[..., Any] | None]] = []


def register(definition: TaskDefinition[..., Any]) -> None:
    """Make a definition known by its name; another function's name is InvalidTask."""
    with _lock:
        known = _definitions.get(definition.name)
        if known is not None and known.module_path != definition.module_path:
            raise InvalidTask(
                f"two tasks have the name {definition.name!r}: {known.module_path} and "
                f"{definition.module_path}; write @task(name=...) on one of them"
            )
        _definitions[definition.name] = definition


def find_definition(name: str) -> TaskDefinition[..., Any] | None:
    """Return the task of this name, None when there is none here."""
    definition = _definitions.get(name)
    if definition is None:
        answers = (find(name) for find in finders)
        definition = next((each for each in answers if each is not None), None)
        if definition is not None:
            register(definition)
    return definition


def get_definition(name: str) -> TaskDefinition[..., Any]:
    """Return the task of this name, else UnknownTask."""
    definition = find_definition(name)
    if definition is None:
        hint = did_you_mean(name, list(_definitions))
        raise UnknownTask(f"no task is registered by the name {name!r}.{hint}")
    return definition


def is_async_name(name: str) -> bool:
    """Tell whether the name is that of an ``async def`` task."""
    definition = find_definition(name)
    return definition is not None and definition.is_async


def all_definitions() -> list[TaskDefinition[..., Any]]:
    """Return the registered tasks in the order of their names."""
    return [definition for _, definition in sorted(_definitions.items())]


def path_of(func: Callable[..., Any]) -> str:
    return f"{func.__module__}.{func.__qualname__}"
