"""A scene: jobs on their way, one statement after another, each change explained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from django_jobs.records import Cycle
from tests.simulation.cast import Worker
from tests.simulation.clock import Clock
from tests.simulation.database import Database, opened
from tests.simulation.job import GAVE_UP, Job
from tests.simulation.model import Violation, World
from tests.simulation.turns import Actor, Fault, Killed, Turns, taking_turns

#: Threads with a connection each.
ACTORS = 4


@dataclass
class Simulation:
    """A database and actors for as many scenes as one likes."""

    clock: Clock
    database: Database
    turns: Turns
    #: What happened so far.
    jobs: int = 0
    steps: int = 0
    faults: int = 0

    def bring_back(self) -> None:
        """Have all jobs end that a scene left: the next one needs the actors."""
        while ready := self.turns.ready():
            self.turns.step(ready[0], Fault.CRASH)


@contextmanager
def simulation() -> Iterator[Simulation]:
    """Open the database of the run for simulations."""
    clock = Clock()
    with opened(clock) as database, taking_turns(database, ACTORS) as turns:
        yield Simulation(clock, database, turns)


@dataclass
class Doing:
    """What an actor does, and for whom."""

    job: Job
    worker: Worker | None = None


class Scene:
    """Empty tables, and a world that explains what comes into them."""

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self.database = simulation.database
        self.turns = simulation.turns
        self.clock = simulation.clock
        single = self.database.store.has_single_writer
        self.world = World(self.clock, has_single_writer=single)
        self.doing: dict[int, Doing] = {}
        #: What happened: sentences, and statements.
        self.story: list[str | tuple[Any, ...]] = []
        #: How much each connection had changed when it committed last.
        self._changes: dict[int, tuple[Any, int | None]] = {}
        self.clock.restart()
        self.database.empty()

    def lines(self) -> list[str]:
        """Return what happened, a line per statement."""
        return [_line(part) for part in self.story]

    def leap(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.story.append(f"the clock goes on by {seconds:g} s")

    def begin(self, actor: Actor, job: Job, worker: Worker | None = None) -> None:
        """Give an actor a job; it comes to its first statement."""
        self.doing[actor.number] = Doing(job, worker)
        self.story.append(f"{actor.number} begins {job.name}")
        self.simulation.jobs += 1
        store = self.database.store
        self.turns.begin(actor, lambda: job.run(actor, store))
        if actor.call is None:
            self._finish(actor)

    def step(self, actor: Actor, fault: Fault | None = None) -> None:
        """Let an actor make its call, and look what came of it."""
        call = actor.call
        assert call is not None
        job = self.doing[actor.number].job
        job.was_alive |= self.world.is_alive(job.worker_id)
        job.is_excused |= fault is not None
        text = call.text or call.verb
        self.story.append((self.clock.seconds, actor.number, job, text, fault))
        tries = {number: each.job.tries for number, each in self.doing.items()}
        went = self.turns.step(actor, fault)
        self.simulation.steps += 1
        if actor.is_blocked:
            self.story.append("        waits for a lock")
        self._look(went)
        for each in went:
            job = self.doing[each.number].job
            if job.tries > tries[each.number]:
                job.new_try()
            if each.call is None:
                self._finish(each)

    def do(self, job: Job) -> Any:
        """Do a job from its begin to its end, with nothing between."""
        actor = self.turns.actors[0]
        self.begin(actor, job)
        while actor.number in self.doing:
            self.step(actor)
        return actor.answer

    def _look(self, went: list[Actor]) -> None:
        # Of each, not only up to the first one: it takes note of what it saw.
        changed = [each for each in went if self._may_have_changed(each)]
        if changed:
            changes = self.world.observe([self.doing[n.number].job for n in went])
            self.story += [f"        {change}" for change in changes]

    def _may_have_changed(self, actor: Actor) -> bool:
        """Did an actor commit something, as far as one can tell?"""
        if self.database.in_transaction(actor.raw):
            return False
        before = self._changes.get(actor.number)
        now = actor.raw, self.database.changes(actor.raw)
        self._changes[actor.number] = now
        return now[1] is None or before != now

    def _finish(self, actor: Actor) -> None:
        doing = self.doing.pop(actor.number)
        job = doing.job
        if isinstance(actor.error, Killed):
            return
        if actor.error is not None:
            raise Violation(f"{job.name} raised {actor.error!r}") from actor.error
        self.story.append(f"{actor.number} ends {job.name}: {_told(actor.answer)}")
        if actor.answer is not GAVE_UP:
            job.check(actor.answer)
        if doing.worker is not None:
            doing.worker.finished(job, actor.answer)
        else:
            self.finished(job, actor.answer)

    def finished(self, job: Job, answer: Any) -> None:
        """Take note of a job that is nobody's in particular."""


def _line(part: str | tuple[Any, ...]) -> str:
    if isinstance(part, str):
        return part
    seconds, number, job, text, fault = part
    wrong = f" !! {fault}" if fault else ""
    return f"{seconds:7.1f}  {number} {job.name}: {' '.join(text.split())[:90]}{wrong}"


def _told(answer: Any) -> str:
    if isinstance(answer, Cycle):
        claimed = [f"{task.id[-4:]}/{task.lease}" for task in answer.claimed]
        return f"claimed {claimed}, stale {[each[-4:] for each in answer.stale]}"
    return "gave up" if answer is GAVE_UP else str(answer)
