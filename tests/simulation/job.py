"""A job: something done on the real store, which explains what it changed."""

from __future__ import annotations

from typing import Any

from django.db import connection
from django.db.utils import InterfaceError, OperationalError, ProgrammingError

from django_jobs.store.errors import is_conflict
from django_jobs.store.portable import PortableStore
from tests.simulation.model import Violation, World
from tests.simulation.rows import Row, Sight
from tests.simulation.turns import Actor, Killed

#: What a database that is away, or a connection that is lost, may raise.
TROUBLE = (OperationalError, InterfaceError, ProgrammingError)
#: So many failures in a row are not made up any more.
MOST_FAILURES = 20
#: The answer of a job that was given up.
GAVE_UP = object()


class Job:
    """Something to do; what it changed must be what it says it did."""

    #: Repeated until it succeeds, as a worker does with what it must not lose?
    is_vital = False

    def __init__(self, world: World, worker_id: str = "") -> None:
        self.world = world
        self.worker_id = worker_id
        self.failures = 0
        #: Was its worker alive at some moment of it?
        self.was_alive = False
        self.tries = 0
        self.new_try()

    def new_try(self) -> None:
        """Begin to take note of another try, what the last one did being seen."""
        #: When it began.
        self.began = self.world.clock.now
        #: Was something made to go wrong in it?
        self.is_excused = False
        #: What changed: id -> (before, after).
        self.changes: dict[str, tuple[Row | None, Row | None]] = {}

    @property
    def name(self) -> str:
        who = f"{self.worker_id[-4:]} " if self.worker_id else ""
        return f"{who}{type(self).__name__}"

    def run(self, actor: Actor, store: PortableStore) -> Any:
        """Do it in an actor's thread, as often as a worker would."""
        while True:
            connection.ensure_connection()
            self.tries += 1
            try:
                return self.work(store)
            except TROUBLE as error:
                if actor.is_dead:
                    raise Killed from error
                if not self.is_excused and not is_conflict(error):
                    raise
                actor.disconnect()
                self.failures += 1
                if not self.is_vital:
                    return GAVE_UP
                if self.failures > MOST_FAILURES:
                    raise

    def work(self, store: PortableStore) -> Any:
        raise NotImplementedError

    def may(self, key: str, before: Row | None, after: Row | None, new: Sight) -> bool:
        """Can this job have made this change?"""
        return False

    def note(self, key: str, before: Row | None, after: Row | None) -> None:
        """Remember a change that it made."""
        self.changes[key] = before, after

    def check(self, answer: Any) -> None:
        """Check that what it was told is what happened."""

    def agree(self, told: Any, seen: Any) -> None:
        if told != seen:
            raise Violation(f"{self.name} was told {told}, but {seen} is what happened")
