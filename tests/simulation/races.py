"""Two or three jobs on one task, in every order in which their statements can come.

The orders are walked through one after the other: each play follows the choices of
the last one up to the deepest at which another actor could have gone, and lets that
one go there. Only orders are left out in which one goes ahead of another, that could
have gone on, more than ``PREEMPTIONS`` times: nearly all races show with two
(Musuvathi and Qadeer, "Iterative context bounding", PLDI 2007).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from django_jobs.records import Demand, NewTask, Outcome
from django_jobs.states import Verdict
from tests.simulation import endings, jobs
from tests.simulation.cast import LEASE, task_id, worker_id
from tests.simulation.job import Job
from tests.simulation.model import Violation
from tests.simulation.scene import Scene, Simulation
from tests.simulation.turns import Actor

TASK = task_id(1)
#: How often one goes ahead of another that could have gone on, of two and of three:
#: where a job is ten statements, three of them could come in 10**12 orders.
PREEMPTIONS = {2: 3, 3: 1}

#: Two that are alive, and one whose lease is over when the race begins.
ONE, TWO, DEAD = worker_id(1), worker_id(2), worker_id(3)


class Race(Scene):
    """One order of the statements."""

    def __init__(self, simulation: Simulation, entrants: Entrants) -> None:
        super().__init__(simulation)
        self._entrants = entrants
        self._last: Actor | None = None
        self._preemptions = 0
        self._rivals = 0

    def run(self, choices: list[int]) -> list[int]:
        """Follow the choices, then take the first; return how many there were each."""
        self._entrants.prepare(self)
        rivals = self._entrants.jobs(self)
        self._rivals = len(rivals)
        for actor, job in zip(self.turns.actors, rivals, strict=False):
            self.begin(actor, job)
        options: list[int] = []
        while self.doing:
            ready = self._ready()
            depth = len(options)
            choice = choices[depth] if depth < len(choices) else 0
            options.append(len(ready))
            self._preemptions += choice > 0 and ready[0] is self._last
            self._last = ready[choice]
            self.step(ready[choice])
        self._check()
        return options

    def _ready(self) -> list[Actor]:
        """Return who may go, first who went last if it can go on."""
        ready = self.turns.ready()
        if not ready:
            raise Violation("everybody waits for everybody else")
        if self._last not in ready:
            return ready
        others = [actor for actor in ready if actor is not self._last]
        return [self._last, *others[: None if self._may_preempt else 0]]

    @property
    def _may_preempt(self) -> bool:
        return self._preemptions < PREEMPTIONS[self._rivals]

    def _check(self) -> None:
        if TASK not in self.world.sight.tasks and TASK not in self.world.pruned:
            raise Violation("the task is lost")

    # -- what a race begins with -------------------------------------------------------

    def ready(self, **changes: object) -> None:
        """Have one task, and the workers registered."""
        task = NewTask(TASK, "task", "a", 0, "[]", "{}", "", 9)
        self.do(jobs.Enqueue(self.world, [task._replace(**changes)]))  # type: ignore[arg-type]
        self.do(jobs.Register(self.world, ONE, 100 * LEASE))
        self.do(jobs.Register(self.world, TWO, 100 * LEASE))

    def running(self, worker: str = ONE) -> None:
        """Have the task run; if that is the dead one, beyond its lease."""
        self.ready()
        if worker == DEAD:
            self.do(jobs.Register(self.world, DEAD, LEASE))
        self.do(endings.Exchange(self.world, worker, [], Demand(1)))
        if worker == DEAD:
            self.leap(LEASE + 1)

    def dead_letter(self) -> None:
        """Have the task failed, and kept for long enough."""
        self.running()
        self.do(self.completes(ONE, Verdict.FAILED))
        self.leap(1000.0)

    # -- who takes part ----------------------------------------------------------------

    def claims(self, worker: str) -> Job:
        return endings.Exchange(self.world, worker, [], Demand(1))

    def completes(self, worker: str, verdict: Verdict = Verdict.SUCCESSFUL) -> Job:
        outcome = Outcome(TASK, 1, verdict)
        return endings.Exchange(self.world, worker, [outcome], None)

    def completes_atomically(self, worker: str) -> Job:
        return endings.AtomicRun(
            self.world, worker, Outcome(TASK, 1, Verdict.SUCCESSFUL)
        )

    def rescues(self, worker: str) -> Job:
        return endings.Rescue(self.world, worker, 500)

    def signs_off(self, worker: str) -> Job:
        return endings.SignOff(self.world, worker)

    def promotes(self) -> Job:
        return jobs.Promote(self.world, ONE)

    def prunes(self) -> Job:
        return jobs.Prune(self.world, ONE, 1000, None)

    def revokes(self) -> Job:
        return jobs.Revoke(self.world, [TASK])

    def requeues(self) -> Job:
        return jobs.Requeue(self.world, [TASK])

    def inserts_again(self) -> Job:
        job = jobs.Enqueue(
            self.world, [NewTask(TASK, "task", "a", 0, "[]", "{}", "", 9)]
        )
        job.failures = 1  # the answer of the first one was lost
        return job


@dataclass(frozen=True)
class Entrants:
    """What there is at the start, and the jobs that race."""

    prepare: Callable[[Race], None]
    jobs: Callable[[Race], list[Job]]


def race(simulation: Simulation, entrants: Entrants) -> int:
    """Play every order there is; return how many there are."""
    count = 0
    for choices in _orders(simulation, entrants):
        count += 1
        del choices
    return count


def _orders(simulation: Simulation, entrants: Entrants) -> Iterator[list[int]]:
    choices: list[int] | None = []
    while choices is not None:
        options = _play(simulation, entrants, choices)
        yield choices
        choices = _next(choices, options)


def _play(simulation: Simulation, entrants: Entrants, choices: list[int]) -> list[int]:
    played = Race(simulation, entrants)
    try:
        return played.run(choices)
    except Exception as error:
        simulation.bring_back()
        lines = "\n".join(played.lines())
        raise Violation(f"order {choices}: {error}\n{lines}") from error


def _next(choices: list[int], options: list[int]) -> list[int] | None:
    """Return the choices up to the deepest one that can be another, with that one."""
    taken = choices + [0] * (len(options) - len(choices))
    for depth in reversed(range(len(options))):
        if taken[depth] + 1 < options[depth]:
            return [*taken[:depth], taken[depth] + 1]
    return None


RACES = {
    "claim, claim": Entrants(Race.ready, lambda it: [it.claims(ONE), it.claims(TWO)]),
    "claim, revoke": Entrants(Race.ready, lambda it: [it.claims(ONE), it.revokes()]),
    "complete, complete": Entrants(
        Race.running,
        lambda it: [it.completes(ONE), it.completes(ONE, Verdict.RETRY)],
    ),
    "complete, rescue": Entrants(
        lambda it: it.running(DEAD), lambda it: [it.completes(DEAD), it.rescues(ONE)]
    ),
    "fail, rescue": Entrants(
        lambda it: it.running(DEAD),
        lambda it: [it.completes(DEAD, Verdict.FAILED), it.rescues(ONE)],
    ),
    "complete atomically, rescue": Entrants(
        lambda it: it.running(DEAD),
        lambda it: [it.completes_atomically(DEAD), it.rescues(ONE)],
    ),
    "complete, revoke": Entrants(
        Race.running, lambda it: [it.completes(ONE), it.revokes()]
    ),
    "retry, revoke": Entrants(
        Race.running, lambda it: [it.completes(ONE, Verdict.RETRY), it.revokes()]
    ),
    "rescue, revoke": Entrants(
        lambda it: it.running(DEAD), lambda it: [it.rescues(ONE), it.revokes()]
    ),
    "rescue, rescue": Entrants(
        lambda it: it.running(DEAD), lambda it: [it.rescues(ONE), it.rescues(TWO)]
    ),
    "sign off, rescue": Entrants(
        lambda it: it.running(DEAD), lambda it: [it.signs_off(DEAD), it.rescues(ONE)]
    ),
    "requeue, prune": Entrants(
        Race.dead_letter, lambda it: [it.requeues(), it.prunes()]
    ),
    "requeue, requeue": Entrants(
        Race.dead_letter, lambda it: [it.requeues(), it.requeues()]
    ),
    "insert again, complete": Entrants(
        Race.running, lambda it: [it.inserts_again(), it.completes(ONE)]
    ),
    "insert again, fail": Entrants(
        Race.running,
        lambda it: [it.inserts_again(), it.completes(ONE, Verdict.FAILED)],
    ),
    "claim, claim, revoke": Entrants(
        Race.ready, lambda it: [it.claims(ONE), it.claims(TWO), it.revokes()]
    ),
    "complete, rescue, revoke": Entrants(
        lambda it: it.running(DEAD),
        lambda it: [it.completes(DEAD), it.rescues(ONE), it.revokes()],
    ),
}
