"""A producer: enqueues keyed tasks of every kind until it is told to stop.

``python -m tests.processes.chaos.load NAME SEED PAUSE``. Of every key it writes first
that it is about to enqueue it, and then what came of that. A key that failed is given
up: it may exist or not, and must not be enqueued again.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NamedTuple

import django

django.setup()

from django.db import DatabaseError, InterfaceError, connection, transaction  # noqa: E402

from django_jobs import Signature, control, enqueue_many  # noqa: E402
from django_jobs.models import DeadLetter, Task  # noqa: E402
from tests.processes.chaos import audit, tasks  # noqa: E402
from tests.processes.chaos.models import Order  # noqa: E402
from tests.processes.chaos.released import forgotten  # noqa: E402

#: So many waiting tasks are enough: recovery is measured, not the length of a queue.
ENOUGH = 25
#: A look at the length of the queue after so many calls.
LOOK = 2
#: No task of a run may ever be this late.
FAR = timedelta(minutes=30)


#: Tasks, and how often they come.
KINDS = {
    tasks.plain: 30,
    tasks.sleep: 15,
    tasks.coroutine: 15,
    tasks.atomic: 20,
    tasks.outbox: 5,
    tasks.flaky: 10,
    tasks.doomed: 3,
    tasks.fleeting: 6,
    forgotten: 0.5,
}
#: A deadly task comes once in so many: it takes innocent ones with it.
SELDOM = 400
#: Delayed tasks that a producer remembers, to revoke one of them.
REMEMBERED = 20


class RolledBack(Exception):
    """Raised by a producer to roll its transaction back."""


class Call(NamedTuple):
    """A call of a task, and its key."""

    key: str
    signature: Signature[Any]
    delay: float


class Producer:
    """Makes up keys, and enqueues each in one of several ways."""

    def __init__(self, name: str, seed: str, pause: float) -> None:
        self.name = name
        self.pause = pause
        self.random = random.Random(seed)
        self.is_stopping = False
        self._count = 0
        #: Keys and ids of tasks that wait for their time.
        self._delayed: deque[tuple[str, str]] = deque(maxlen=REMEMBERED)
        self._path = os.environ["CHAOS_PRODUCED"]

    def stop(self, *args: object) -> None:
        self.is_stopping = True

    def run(self) -> None:
        calls = 0
        ways = self.ways()
        while not self.is_stopping:
            way = self.random.choice(ways)
            self.guarded(way)
            calls += 1
            if calls % LOOK == 0:
                self.guarded(self.wait_for_room)
            time.sleep(self.random.uniform(0, 2 * self.pause))

    def guarded(self, call: Callable[[], None]) -> None:
        try:
            call()
        except (DatabaseError, InterfaceError, RolledBack):
            time.sleep(self.random.uniform(0.02, 0.2))

    def wait_for_room(self) -> None:
        while not self.is_stopping and Task.objects.count() > ENOUGH:
            time.sleep(0.1)

    # -- the ways to enqueue ---------------------------------------------------------

    def ways(self) -> list[Callable[[], None]]:
        return [
            *[self.enqueue_one] * 6,
            *[self.enqueue_some] * 2,
            self.enqueue_async,
            *[self.enqueue_in_transaction] * 2,
            self.roll_back,
            self.revoke_one,
            self.requeue_one,
        ]

    def enqueue_one(self) -> None:
        call = self.make_up()
        with self.told("one", [call]):
            result = call.signature.enqueue()
        if call.delay:
            self._delayed.append((call.key, result.id))

    def enqueue_async(self) -> None:
        call = self.make_up()
        with self.told("async", [call]):
            asyncio.run(call.signature.aenqueue())

    def enqueue_some(self) -> None:
        calls = [self.make_up() for _ in range(self.random.randint(2, 20))]
        with self.told("many", calls):
            enqueue_many([call.signature for call in calls])

    def enqueue_in_transaction(self) -> None:
        """The task and the order exist both, or none of them does."""
        call = self.make_up()
        with self.told("ordered", [call]), fresh_after_error(), transaction.atomic():
            Order.objects.create(key=call.key)
            call.signature.enqueue()

    def roll_back(self) -> None:
        call = self.make_up()
        with self.told("undone", [call]), fresh_after_error(), transaction.atomic():
            Order.objects.create(key=call.key)
            call.signature.enqueue()
            raise RolledBack

    # -- what else there is to ask for -----------------------------------------------

    def revoke_one(self) -> None:
        if self._delayed:
            key, task_id = self._delayed.pop()
            self._note("revoking", key)
            answers = control.revoke([task_id])
            self._note("revoked", key, answers.get(task_id, tasks.MISSING))

    def requeue_one(self) -> None:
        dead = list(DeadLetter.objects.filter(name=tasks.doomed.name)[:REMEMBERED])
        if dead:
            letter = self.random.choice(dead)
            [key] = json.loads(letter.args)
            self._note("requeueing", key)
            if control.requeue([letter.id]):  # nobody else was faster
                self._note("requeued", key)

    def _note(self, event: str, key: str, answer: str = "-") -> None:
        now = time.monotonic()
        words = event, key, answer, now, now, "-", "-", self.name
        audit.write_line(self._path, *words)

    # -- what to enqueue -------------------------------------------------------------

    def make_up(self) -> Call:
        self._count += 1
        key = f"{self.name}-{self._count}"
        delay = self.random.uniform(0.2, 3) if self.random.random() < 0.15 else 0.0
        options: dict[str, Any] = {
            "priority": self.random.choice([0, 0, 0, 10]),
            "queue_name": self.random.choice(["default", "default", "mail"]),
            "expires": FAR,
        }
        if delay:
            options["run_after"] = delay
        return Call(key, self._signature(key).using(**options), delay)

    def _signature(self, key: str) -> Signature[Any]:
        if self._count % SELDOM == SELDOM // 4:
            return tasks.deadly.s(key)
        kind = self.random.choices(list(KINDS), list(KINDS.values()))[0]
        if kind in (tasks.sleep, tasks.coroutine):
            return kind.s(key, round(self.random.uniform(0.01, 0.8), 3))
        return kind.s(key)

    @contextmanager
    def told(self, way: str, calls: Sequence[Call]) -> Iterator[None]:
        """Write what is about to be enqueued, and what came of it."""
        self._tell("try", way, calls)
        try:
            yield
        except (DatabaseError, InterfaceError) as error:
            self._tell("fail", way, calls, type(error).__name__)
            raise
        except RolledBack:
            self._tell("undo", way, calls)
            raise
        self._tell("ack", way, calls)

    def _tell(
        self, event: str, way: str, calls: Sequence[Call], error: str = "-"
    ) -> None:
        now = time.monotonic()
        for call in calls:
            name = call.signature.definition.name
            words = event, call.key, way, now + call.delay, now, error, name, self.name
            audit.write_line(self._path, *words)


@contextmanager
def fresh_after_error() -> Iterator[None]:
    """Replace the connection after an error, as the end of a request would."""
    try:
        yield
    except (DatabaseError, InterfaceError):
        connection.close()
        raise


def main() -> None:
    name, seed, pause = sys.argv[1:]
    producer = Producer(name, seed, float(pause))
    signal.signal(signal.SIGTERM, producer.stop)
    producer.run()


if __name__ == "__main__":
    main()
