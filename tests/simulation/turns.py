"""Turns: threads that speak to the database one at a time, when they are let.

Each actor is a thread with a connection of its own that runs the real store. Before
each call of its driver it stops, until it is let go. So whoever lets them go decides
in which order the statements of all of them reach the database, and what goes wrong.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from enum import StrEnum
from queue import Empty, SimpleQueue
from typing import Any
from unittest.mock import patch

from django.db import connection, connections

from tests.simulation.database import Database
from tests.statements import Call, watched

#: Seconds after which something that should come back is a fault of the simulation.
DEADLINE = 60.0
#: Seconds to wait for an actor before it is asked whether it waits for a lock.
PATIENCE = 0.002


class Killed(BaseException):
    """The process of an actor is gone."""


class Fault(StrEnum):
    """What may happen to a call."""

    CRASH = "its process dies before"
    CRASH_AFTER = "its process dies after"
    ERROR = "an error instead"
    DROP = "the connection is lost before"
    LOST = "the answer is lost"


#: Faults that come before the call is made.
BEFORE = (Fault.CRASH, Fault.ERROR, Fault.DROP)


class Actor:
    """A thread that does a job at a time, and each call of it when it is let."""

    def __init__(self, number: int, turns: Turns) -> None:
        self.number = number
        #: The call that it waits to make; None when it has nothing to do.
        self.call: Call | None = None
        #: Is its process gone, up to the end of the job?
        self.is_dead = False
        #: Is its driver waiting for an answer?
        self.is_calling = False
        #: Was it let go, and does it wait for a lock since?
        self.is_blocked = False
        #: What its last job returned, or raised.
        self.answer: Any = None
        self.error: BaseException | None = None
        self.raw: Any = None
        self._database = turns.database
        self._local = turns.local
        self._works: SimpleQueue[Callable[[], Any] | None] = SimpleQueue()
        self._go: SimpleQueue[Fault | None] = SimpleQueue()
        #: Gets an item when it comes to its next call, or to the end of its job.
        self.here: SimpleQueue[None] = SimpleQueue()
        #: Calls that are made without asking: those within another one, and those of a
        #: connection that is being opened.
        self._is_free = False
        self._pipe: Any = None
        self._fault: Fault | None = None
        self._thread = threading.Thread(target=self._run, name=f"actor-{number}")
        self._thread.start()

    def begin(self, work: Callable[[], Any]) -> None:
        self._works.put(work)

    def let_go(self, fault: Fault | None) -> None:
        self._go.put(fault)

    def end(self) -> None:
        self._works.put(None)
        self._thread.join(DEADLINE)

    # -- in the thread -----------------------------------------------------------------

    def _run(self) -> None:
        self._local.actor = self
        while (work := self._works.get()) is not None:
            self.answer = self.error = None
            try:
                self.answer = work()
            except BaseException as error:
                self.error = error
                if self.is_dead:  # its frames would keep cursors from being closed
                    error.with_traceback(None)
                self.disconnect()
            self.call, self.is_dead = None, False
            self.here.put(None)
        connections.close_all()

    @contextmanager
    def freely(self) -> Iterator[None]:
        """Make calls without asking."""
        before, self._is_free = self._is_free, True
        try:
            yield
        finally:
            self._is_free = before

    def disconnect(self) -> None:
        with self.freely():
            connection.close()

    @contextmanager
    def turn(self, call: Call) -> Iterator[None]:
        """Stand around a call: wait for the turn, and do what goes wrong."""
        if self._is_free:
            yield
            return
        if self.is_dead:
            raise Killed
        is_piped = self._database.is_piped(call.raw)
        if not is_piped or self._pipe is None:
            self._fault = self._wait(call)
            self._go_wrong_before(call)
        # What is collected in a pipeline is one turn, up to its end.
        self._pipe = call.raw if is_piped and call.verb != "sync" else None
        with self.freely():
            self._database.on_turn(call.raw)
            self.is_calling = True
            try:
                yield
            finally:
                self.is_calling = False
        if self._pipe is None:
            self._go_wrong_after(call)

    def _wait(self, call: Call) -> Fault | None:
        self.call, self.raw = call, call.raw
        self.here.put(None)
        return self._go.get()

    def _go_wrong_before(self, call: Call) -> None:
        if self._fault is Fault.CRASH:
            self._die(call)
        if self._fault is Fault.ERROR:
            raise connection.Database.OperationalError("made up")
        if self._fault is Fault.DROP:
            self._cut(call)

    def _go_wrong_after(self, call: Call) -> None:
        if self._fault is Fault.CRASH_AFTER:
            self._die(call)
        if self._fault is Fault.LOST:
            self._cut(call)
            raise connection.Database.OperationalError("the answer is lost")

    def _die(self, call: Call) -> None:
        self._cut(call)
        self.is_dead = True  # until the job is over
        raise Killed

    def _cut(self, call: Call) -> None:
        with self.freely():
            self._database.cut(call.raw)


class Turns:
    """Several actors, of whom one goes at a time."""

    def __init__(self, database: Database, count: int) -> None:
        self.database = database
        self.local = threading.local()
        self.actors = [Actor(number, self) for number in range(count)]

    @contextmanager
    def around(self, call: Call) -> Iterator[None]:
        actor = getattr(self.local, "actor", None)
        if actor is None:
            yield
        else:
            with actor.turn(call):
                yield

    def connecting(self) -> Any:
        """Return a patch: what a new connection asks is asked without turns.

        When there is one depends on what the seeds before did.
        """
        wrapper_class = type(connections[connection.alias])
        original = wrapper_class.connect

        def connect(wrapper: Any) -> None:
            actor = getattr(self.local, "actor", None)
            with actor.freely() if actor else nullcontext():
                original(wrapper)
                if actor:
                    self.database.warm_up(wrapper)

        return patch.object(wrapper_class, "connect", connect)

    def begin(self, actor: Actor, work: Callable[[], Any]) -> None:
        """Give an actor something to do; it comes to its first call."""
        actor.begin(work)
        self._wait_for(actor)

    def step(self, actor: Actor, fault: Fault | None = None) -> list[Actor]:
        """Let an actor make its call; return who went on: also those it had blocked."""
        actor.let_go(fault)
        self._wait_for(actor)
        blocked = [each for each in self.actors if each.is_blocked]
        for each in blocked:
            self._wait_for(each)
        freed = [each for each in blocked if not each.is_blocked and each is not actor]
        return [actor, *freed]

    def ready(self) -> list[Actor]:
        """Return who can be let go."""
        return [each for each in self.actors if each.call and self._may_go(each)]

    def _may_go(self, actor: Actor) -> bool:
        call = actor.call
        if actor.is_blocked or call is None:
            return False
        return not self.database.needs_turn_to_write(call) or not any(
            each.call and self.database.in_transaction(each.raw)
            for each in self.actors
            if each is not actor
        )

    def _wait_for(self, actor: Actor) -> None:
        """Wait until an actor comes to its next call or is seen to wait for a lock."""
        until = time.monotonic() + DEADLINE
        while time.monotonic() < until:
            try:
                actor.here.get(timeout=PATIENCE if self.database.blocks else DEADLINE)
            except Empty:
                if actor.is_calling and self.database.is_waiting(actor.raw):
                    actor.is_blocked = True
                    return
            else:
                actor.is_blocked = False
                return
        raise TimeoutError(f"actor {actor.number} never came back from {actor.call}")


@contextmanager
def taking_turns(database: Database, count: int) -> Iterator[Turns]:
    """Yield actors; their threads end with the block."""
    turns = Turns(database, count)
    try:
        with watched(turns.around), turns.connecting():
            yield turns
    finally:
        for actor in turns.actors:
            actor.end()
