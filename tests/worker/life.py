"""A whole life cycle of tasks in this process.

Enqueued one by one, in a transaction, in bulk and for later; run with success, failure,
retry and a dead letter, atomically, on the event loop, revoked, expired; completed,
requeued, rescued from a dead worker, promoted, pruned. Every run is noted by its task.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any, NamedTuple, Self

from django.db import Error, connections, transaction
from django.utils import timezone

from django_jobs import TaskContext, control, enqueue_many, task
from django_jobs.models import Attempt, DeadLetter, Operation, Result, Task, Worker
from django_jobs.records import NewTask, Outcome
from django_jobs.states import State, Verdict
from django_jobs.store import get_store
from tests.store.samples import OTHER_WORKER, places
from tests.worker.inprocess import InProcessWorker
from tests.worker.parts import NOBODY, PATIENCE, wait_for

SETTINGS: dict[str, Any] = {
    "HEARTBEAT": 0.15,
    "POLL": 0.05,
    "CRASH_BUDGET": 2,
    "ENQUEUE_MIDDLEWARE": ["tests.worker.life.remember"],
}


# -- what the tasks leave behind ------------------------------------------------------


class Run(NamedTuple):
    """A call of a task's function."""

    id: str
    lease: int
    key: str


#: All runs, and all tasks that ``enqueue`` has handed on.
runs: list[Run] = []
sent: dict[str, NewTask] = {}
#: Is the fault mended for which tasks have failed?
is_healed = threading.Event()
is_waiting = threading.Event()


def remember(get_response: Callable[[NewTask], NewTask]) -> Any:
    """Note the tasks on their way to the store; a middleware."""

    def middleware(new: NewTask) -> NewTask:
        sent[new.id] = new
        return get_response(new)

    return middleware


def note(context: TaskContext, key: str) -> None:
    runs.append(Run(context.claimed.id, context.claimed.lease, key))


# -- the tasks ------------------------------------------------------------------------

POLICY: dict[str, Any] = {"takes_context": True, "backoff": [0.001]}


@task(**POLICY)
def succeed(context: TaskContext, key: str) -> str:
    note(context, key)
    return key


@task(**POLICY)
async def asucceed(context: TaskContext, key: str) -> str:
    note(context, key)
    return key


@task(**POLICY)
def succeed_at_second(context: TaskContext, key: str) -> str:
    note(context, key)
    if context.attempt == 1:
        raise ValueError("the first one fails")
    return key


@task(**{**POLICY, "max_attempts": 2})
def succeed_when_healed(context: TaskContext, key: str) -> str:
    note(context, key)
    if not is_healed.is_set():
        raise ValueError("not yet")
    return key


@task(**POLICY)
def tell(context: TaskContext, key: str) -> str:
    note(context, key)
    context.progress(1, 2)
    context.metadata["half"] = key
    context.save_metadata()
    return key


@task(**{**POLICY, "atomic": True})
def write(context: TaskContext, key: str) -> str:
    """Leave an effect, and a further task, with the completion."""
    note(context, key)
    leave_effect(key)
    succeed.enqueue(f"child of {key}")
    return key


@task(**{**POLICY, "atomic": True})
def write_at_second(context: TaskContext, key: str) -> str:
    note(context, key)
    leave_effect(key)
    if context.attempt == 1:
        raise ValueError("the first one fails")
    return key


@task(**POLICY)
def wait_until_revoked(context: TaskContext, key: str) -> None:
    note(context, key)
    is_waiting.set()
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        time.sleep(0.001)  # where it is interrupted


@task(**POLICY, result_retention=0)
def vanish(context: TaskContext, key: str) -> None:
    note(context, key)


def leave_effect(key: str) -> None:
    Operation.objects.create(kind=key, created_at=timezone.now())


# -- what the application does --------------------------------------------------------


class Life:
    """One life cycle on a worker that runs; ``live()`` returns at its end."""

    def __init__(self, worker: InProcessWorker, application: Application) -> None:
        self.worker = worker
        self.application = application
        #: The ids by the keys that were given to the tasks.
        self.ids: dict[str, str] = {}

    def live(self) -> None:
        self._leave_dead_worker()
        self._enqueue()
        self._work()

    def _enqueue(self) -> None:
        application = self.application
        application.enqueue(lambda: succeed.enqueue("single"))
        application.do(order, order_again)
        later = timedelta(hours=1)
        calls = [
            asucceed.s("async"),
            succeed_at_second.s("retried"),
            succeed_when_healed.s("requeued"),
            tell.s("told"),
            write.s("written"),
            write_at_second.s("written at second"),
            wait_until_revoked.s("revoked while it runs"),
            vanish.s("pruned"),
            succeed.using(run_after=0.01).s("delayed"),
            succeed.using(run_after=later).s("revoked before"),
            succeed.using(expires=timezone.now() - later).s("expired"),
        ]
        application.enqueue(lambda: enqueue_many(calls))
        self._note_ids()
        self._repeatedly(lambda: control.revoke([self.ids["revoked before"]]))

    def _work(self) -> None:
        wait_for(is_waiting.is_set)
        self._come_late(self.ids["revoked while it runs"])
        self._repeatedly(lambda: control.revoke([self.ids["revoked while it runs"]]))
        letter = [self.ids["requeued"]]
        wait_for(DeadLetter.objects.filter(pk__in=letter).exists)
        is_healed.set()
        self._repeatedly(lambda: control.requeue(letter))
        wait_for(self._is_settled)
        # After whatever has happened it does one more.
        self.application.enqueue(lambda: succeed.enqueue("further"))
        self._note_ids()
        wait_for(lambda: not Task.objects.exists())

    def _come_late(self, task_id: str) -> None:
        """Say what became of a task that runs as who lost it long ago would do."""
        row = Task.objects.get(pk=task_id)
        strangers = [(OTHER_WORKER, row.lease), (str(row.worker_id), row.lease - 1)]
        for worker_id, lease in strangers:
            for verdict in (Verdict.SUCCESSFUL, Verdict.RETRY):
                late = Outcome(task_id, lease, verdict)
                assert get_store().cycle(worker_id, [late], None).stale == [task_id]

    def _repeatedly(self, call: Callable[[], Any]) -> None:
        self.application.do(call, call)

    def _note_ids(self) -> None:
        for new in list(sent.values()):
            self.ids[key_of(new)] = new.id

    def _is_settled(self) -> bool:
        self.worker.hurry()
        time.sleep(0.005)
        return not (
            Task.objects.exists()
            or Result.objects.filter(pk=self.ids["pruned"]).exists()
            or Worker.objects.filter(pk=OTHER_WORKER).exists()
        )

    def _leave_dead_worker(self) -> None:
        """Leave tasks as if of a worker that died, one of them for the second time."""
        past = timezone.now() - timedelta(hours=1)
        with transaction.atomic():
            Worker.objects.create(
                id=OTHER_WORKER,
                pid=NOBODY,
                started_at=past,
                seen_at=past,
                expires_at=past,
            )
            for key, crashes in (("rescued", 0), ("given up", 1)):
                held = Task.objects.create(
                    name=succeed.name,
                    args=f'["{key}"]',
                    crashes=crashes,
                    state=State.RUNNING,
                    worker_id=OTHER_WORKER,
                    attempt=1 + crashes,
                    lease=1 + crashes,
                    max_attempts=3,
                    last_attempted_at=past,
                    started_at=past,
                    enqueued_at=past,
                    run_after=past,
                )
                self.ids[key] = str(held.pk)


class Application:
    """A thread of the web server, say: it speaks to the database as others do."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "application")
        self.ident = self._thread.submit(threading.get_ident).result()

    def enqueue(self, call: Callable[[], Any]) -> None:
        """Enqueue; repeat that under the same ids as long as the database fails it."""
        before = set(sent)

        def again() -> None:
            lost = [sent[each] for each in sent.keys() - before]
            get_store().insert(lost, again=True)

        self.do(call, again)

    def do(self, call: Callable[[], Any], again: Callable[[], Any]) -> None:
        """Make a call; while the database fails it, begin anew and mend it."""
        until = time.monotonic() + PATIENCE
        while True:
            try:
                return self._in_thread(call)
            except (Error, MemoryError):
                assert time.monotonic() < until
                self.disconnect()
                call = again

    def disconnect(self) -> None:
        self._in_thread(connections.close_all)

    def _in_thread(self, call: Callable[[], Any]) -> None:
        self._thread.submit(call).result(PATIENCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.disconnect()
        self._thread.shutdown()


def order() -> None:
    with transaction.atomic():
        leave_effect("order")
        succeed.enqueue("ordered")


def order_again() -> None:
    """Make sure of the order, which exists as a whole or not at all."""
    ordered = [new for new in sent.values() if key_of(new) == "ordered"]
    has_task = any(places(new.id) for new in ordered)
    assert Operation.objects.filter(kind="order").exists() is has_task
    if not ordered:
        order()
    elif not has_task:
        with transaction.atomic():
            leave_effect("order")
            get_store().insert(ordered, again=True)


def key_of(new: NewTask) -> str:
    return new.args.strip('[]"')


def forget() -> None:
    """Empty the notes and the tables for the next life."""
    runs.clear()
    sent.clear()
    is_healed.clear()
    is_waiting.clear()
    with transaction.atomic():
        for model in (Task, Result, DeadLetter, Attempt, Operation):
            model.objects.all().delete()
