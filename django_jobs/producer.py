"""From plain values to rows: checks before any SQL, the transaction rule, the wake-up.

The rule. Inside ``atomic()`` on the queue's database the row is part of that
transaction. Inside ``atomic()`` on another database the insert waits for its commit; of
several, for the commit of all of them. With ``on_commit=True`` (or
``ENQUEUE_ON_COMMIT``) it waits for whichever transactions are open, with an alias for
that one. All that waits for one transaction is inserted together. Workers are woken,
and ``task_enqueued`` is sent, after the commit that makes the task visible.

When an insert that waited fails, its caller has left ``enqueue()`` long ago: the ids
are logged and the error is raised out of the ``atomic()`` block, as Django does with
callbacks of ``on_commit``. The data of that block is committed all the same.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, InterfaceError, connections, transaction
from django.db.utils import OperationalError
from django.utils import timezone

from django_jobs import events
from django_jobs.conf import conf
from django_jobs.exceptions import (
    InvalidArguments,
    PayloadTooLarge,
    UnknownQueue,
    UnreachableTask,
)
from django_jobs.failpoints import reach
from django_jobs.middleware import enqueue_handler
from django_jobs.options import did_you_mean
from django_jobs.records import NewTask, TaskRecord
from django_jobs.results import Commit, TaskResult
from django_jobs.serializers import dumps
from django_jobs.signals import task_enqueued
from django_jobs.states import State
from django_jobs.store import get_store
from django_jobs.store.base import Store
from django_jobs.store.connecting import replace_if_dead
from django_jobs.store.tables import migrated_store

logger = logging.getLogger("django_jobs")

#: Seconds; a worker that was woken looks again by itself after that.
_WAKE_UP_EVERY = 0.005
#: Where functions are that were typed into a shell, or are part of a script.
_NOWHERE = ("__main__", "__console__", "None", "django.core.management.commands.shell")
_FROM_NOWHERE = tuple(f"{module}." for module in _NOWHERE)
#: What to do with a task that is named.
_HOW_ELSE = (
    "; if workers know the name from code that is not here, declare it in any module "
    "that is imported, not run"
)


def check_reachable(name: str, function: Callable[..., Any]) -> None:
    """Refuse a task that is declared where no worker finds it, whatever its name is."""
    module = str(function.__module__)
    is_named = not name.startswith(_FROM_NOWHERE)
    if is_named and (module not in _NOWHERE or _is_of_run_module(function)):
        return
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    where = "a script or a shell"
    if spec is not None and name.startswith("__main__."):
        where = f"{spec.name}, run as __main__"
    raise UnreachableTask(
        f"task {name} is declared in {where}, which no worker imports: write it in "
        "the module tasks of an installed app, and import it from there"
        f"{_HOW_ELSE if is_named else ''}"
    )


def _is_of_run_module(function: Callable[..., Any]) -> bool:
    """Tell whether it is in a module that was run with -m: workers may import that."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    code = getattr(function, "__code__", None)
    return spec is not None and code is not None and code.co_filename == spec.origin


def check_queue(queue_name: str) -> None:
    """Refuse a queue that is not declared, when queues are."""
    queues = conf().QUEUES
    if queues and queue_name not in queues:
        hint = did_you_mean(queue_name, queues)
        raise UnknownQueue(
            f"the queue {queue_name!r} is not among DJANGO_JOBS['QUEUES'].{hint}"
        )


def payload(
    name: str, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[str, str]:
    """Return the arguments as JSON, or say which of them cannot be stored."""
    depth = conf().PAYLOAD_MAX_DEPTH + 1  # args and kwargs themselves are no level
    try:
        args_text = dumps(args, path="args", max_depth=depth) if args else "[]"
        kwargs_text = dumps(kwargs, path="kwargs", max_depth=depth) if kwargs else "{}"
    except InvalidArguments as error:
        raise InvalidArguments(f"task {name}: {error}") from None
    if len(args_text) + len(kwargs_text) > conf().PAYLOAD_MAX_BYTES:
        raise PayloadTooLarge(_too_large(name, args, kwargs))
    return args_text, kwargs_text


def _too_large(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    sizes = {f"args[{place}]": len(dumps(each)) for place, each in enumerate(args)}
    sizes |= {f"kwargs[{key!r}]": len(dumps(kwargs[key])) for key in kwargs}
    largest = max(sizes, key=sizes.__getitem__)
    return (
        f"task {name}: the arguments are longer than PAYLOAD_MAX_BYTES, "
        f"{conf().PAYLOAD_MAX_BYTES} bytes of JSON; {largest} alone has "
        f"{sizes[largest]}: store it and pass its key"
    )


def enqueue(
    tasks: Sequence[NewTask],
    senders: Sequence[object],
    on_commit: bool | str | None = None,
    alias: str | None = None,
) -> list[TaskResult[Any]]:
    """Enqueue tasks by the transaction rule, all of them or none.

    ``senders`` are those of ``task_enqueued``, one per task; ``alias`` names a
    database other than the queue's own one.
    """
    if not tasks:
        return []
    store = get_store(alias)
    batch = _Batch(store, _through_middleware(tasks), senders)
    batch.aliases = _transactions_to_wait_for(store.alias, on_commit)
    if batch.aliases:
        batch.defer()
    else:
        _insert(store, [batch])
    return batch.results


def _through_middleware(tasks: Sequence[NewTask]) -> list[NewTask]:
    through = enqueue_handler()
    passed = [through(task) for task in tasks]
    for task in passed:
        if not isinstance(task, NewTask):
            raise ImproperlyConfigured(
                "A middleware of ENQUEUE_MIDDLEWARE returned "
                f"{task!r:.100} instead of the task."
            )
    return passed


def _transactions_to_wait_for(
    queue_alias: str, on_commit: bool | str | None
) -> tuple[str, ...]:
    """Return the aliases whose commit the insert has to wait for."""
    if isinstance(on_commit, str):
        return (on_commit,) if connections[on_commit].in_atomic_block else ()
    if on_commit is False:
        return ()
    waits = on_commit or conf().ENQUEUE_ON_COMMIT
    if not waits and connections[queue_alias].in_atomic_block:
        return ()
    return tuple(
        connection.alias
        for connection in connections.all(initialized_only=True)
        if connection.in_atomic_block
    )


class _Batch:
    """The tasks of one call, and the results that the call returns."""

    __slots__ = ("aliases", "commit", "results", "senders", "store", "tasks")

    def __init__(
        self, store: Store, tasks: list[NewTask], senders: Sequence[object]
    ) -> None:
        self.store = store
        self.tasks = tasks
        self.senders = senders
        self.aliases: tuple[str, ...] = ()
        self.results: list[TaskResult[Any]] = []
        self.commit: Commit | None = None

    def defer(self) -> None:
        self.commit = Commit()
        self.commit.aliases = self.aliases
        self._make_results(None)
        ahead = set(self.aliases)
        for alias in self.aliases:
            _Deferral.of(alias).add(self, ahead)

    def inserted(self, now: datetime) -> None:
        """Take note of the insert; what it tells others has to wait for the commit."""
        alias = self.store.alias
        if connections[alias].in_atomic_block:
            self.commit = self.commit or Commit()
            self.commit.aliases = (alias,)
        if self.results:
            for task, result in zip(self.tasks, self.results, strict=True):
                result.record = _record(task, now)
        else:
            self._make_results(now)
        _after_commit(alias, self.announce)

    def announce(self) -> None:
        """Tell workers and receivers of tasks that are committed."""
        reach("enqueue.after_commit")
        if self.commit is not None:
            self.commit.is_done = True
        _wake_up(self.store)
        if task_enqueued.receivers:
            for sender, result in zip(self.senders, self.results, strict=True):
                task_enqueued.send_robust(sender, task_result=result)

    def _make_results(self, now: datetime | None) -> None:
        alias = self.store.alias
        self.results = [
            TaskResult(_record(task, now), alias, self.commit) for task in self.tasks
        ]


class _Deferral:
    """What waits for the commit of one transaction, to be inserted in one go.

    Each batch has a callback of its own, which Django drops with the savepoint that
    the batch belongs to. The insert has to come after all of them, so its callback
    is always the last of ours, and belongs to no savepoint.
    """

    def __init__(self, alias: str) -> None:
        self.alias = alias
        self.ready: list[_Batch] = []

    @classmethod
    def of(cls, alias: str) -> _Deferral:
        """Return the open transaction's own, its insert taken out of the callbacks."""
        callbacks = _callbacks(alias)
        for place in range(len(callbacks) - 1, -1, -1):
            deferral = getattr(callbacks[place][1], "__self__", None)
            if isinstance(deferral, cls):
                # Replaced, not removed: test cases count on the places of the others.
                callbacks[place] = (set(), _nothing, False)
                return deferral
        return cls(alias)

    def add(self, batch: _Batch, ahead: set[str]) -> None:
        """Let the batch wait; ``ahead`` are all the commits that it has to wait for."""

        def committed() -> None:
            ahead.discard(self.alias)
            if not ahead:
                self.ready.append(batch)

        transaction.on_commit(committed, using=self.alias)
        _callbacks(self.alias).append((set(), self.insert, False))

    def insert(self) -> None:
        """Insert what is left after rollbacks to savepoints."""
        reach("enqueue.deferred")
        batches, self.ready = self.ready, []
        stores = {batch.store.alias: batch.store for batch in batches}
        for alias, store in stores.items():
            group = [batch for batch in batches if batch.store.alias == alias]
            try:
                _insert(store, group)
            except Exception:
                ids = [task.id for batch in group for task in batch.tasks]
                events.log(
                    logger, logging.ERROR, "enqueue_failed", exc_info=True, task_ids=ids
                )
                raise


def _callbacks(alias: str) -> list[Any]:
    """Return Django's list of (savepoints, callback, is robust)."""
    callbacks: list[Any] = connections[alias].run_on_commit
    return callbacks


def _after_commit(alias: str, callback: Callable[[], None]) -> None:
    """Call back after the commit of what was just written, at once if that is done."""
    connection = connections[alias]
    if connection.in_atomic_block:
        transaction.on_commit(callback, using=alias, robust=True)
    elif connection.get_autocommit():
        callback()
    else:
        # Django refuses on_commit() in transactions that are managed by hand, but it
        # runs what is there when autocommit is switched on again after a commit.
        _callbacks(alias).append((set(), callback, True))


def _nothing() -> None:
    """Keep the place of a callback that moved on."""


def _insert(store: Store, batches: Sequence[_Batch]) -> None:
    reach("enqueue.before_insert")
    now = _write(store, [task for batch in batches for task in batch.tasks])
    reach("enqueue.after_insert")
    for batch in batches:
        batch.inserted(now)


def _write(store: Store, tasks: Sequence[NewTask]) -> datetime:
    """Insert; SetupError when the tables are not there, or old."""
    with migrated_store(store.alias):
        return _write_surely(store, tasks)


def _write_surely(store: Store, tasks: Sequence[NewTask]) -> datetime:
    """Insert; once more on a fresh connection when the old one turns out to be dead.

    That is safe even if the first insert was committed and only the answer was lost:
    the store leaves ids alone that are there.
    """
    try:
        return store.insert(tasks)
    except (OperationalError, InterfaceError):
        if not replace_if_dead(connections[store.alias]):
            raise
    return store.insert(tasks, again=True)


def _record(task: NewTask, now: datetime | None) -> TaskRecord:
    """Return what is known of a task that was just inserted, or that waits for it."""
    is_later = bool(task.delay) or (
        task.run_after is not None and task.run_after > (now or timezone.now())
    )
    due = task.run_after if is_later else now
    if now is not None and task.delay:
        due = now + timedelta(seconds=task.delay)
    return TaskRecord(
        id=task.id,
        state=State.SCHEDULED if is_later else State.READY,
        name=task.name,
        queue_name=task.queue_name,
        priority=task.priority,
        args=task.args,
        kwargs=task.kwargs,
        metadata=task.metadata,
        max_attempts=task.max_attempts,
        attempt=0,
        crashes=0,
        enqueued_at=now,
        run_after=due,
        started_at=None,
        last_attempted_at=None,
        finished_at=None,
        return_value=None,
        revoke_requested=False,
        reason="",
        worker_ids=[],
        errors=[],
    )


# -- wake-up -----------------------------------------------------------------------

_last_wake_up: dict[str, float] = {}


def _wake_up(store: Store) -> None:
    """Notify workers, at most once per process in a few milliseconds."""
    if not store.can_notify or not conf().NOTIFY:
        return
    if connections[store.alias].in_atomic_block:
        return  # a test case that plays the commit: nobody outside sees anything
    now = time.monotonic()
    if now - _last_wake_up.get(store.alias, -1.0) < _WAKE_UP_EVERY:
        return
    _last_wake_up[store.alias] = now
    try:
        store.notify()
    except DatabaseError as error:
        # The poll finds them.
        events.log(logger, logging.WARNING, "wake_up_failed", error=str(error))
