"""One seed: who does what, whose statement is next and what goes wrong is its dice."""

from __future__ import annotations

import random
from typing import Any

from django_jobs.records import Cycle, Demand, Outcome
from django_jobs.states import Verdict
from tests.simulation import endings, jobs
from tests.simulation.cast import LEASE, Cast
from tests.simulation.job import Job
from tests.simulation.model import Violation
from tests.simulation.scene import Scene, Simulation
from tests.simulation.turns import Actor, Fault
from tests.statements import Call

#: Seconds by which the clock may be moved: less and more than a lease.
LEAPS = (1.0, 6.0, 12.0, LEASE + 1, 4 * LEASE)
#: Longer than any lease, delay or retention.
LONG = 1000.0
#: What a call may be hit by, and how likely that is: at a commit, and else.
FAULTS = (Fault.ERROR, Fault.DROP, Fault.LOST)
AT_COMMIT, ELSE = 0.06, 0.006
#: Rounds in which whatever is left must come to its end.
MOST_ROUNDS = 50


def play(simulation: Simulation, seed: int) -> Play:
    """Play a seed; Violation, with all that happened, when it must not happen."""
    played = Play(simulation, seed)
    try:
        played.run()
    except Exception as error:
        simulation.bring_back()
        lines = "\n".join(played.lines())
        raise Violation(f"seed {seed}: {error}\n{lines}") from error
    return played


class Play(Scene):
    """A scene that dice direct."""

    def __init__(self, simulation: Simulation, seed: int) -> None:
        super().__init__(simulation)
        self.dice = dice = random.Random(seed)
        self.cast = Cast(dice, self.world)
        #: Jobs that are still to be begun.
        self.left = dice.randint(10, 40)
        #: How likely it is that something new begins instead of something going on,
        #: and that the same actor goes on.
        self.eagerness = dice.choice([0.1, 0.3, 0.6])
        self.patience = dice.choice([0.0, 0.5, 0.9])
        self.has_faults = dice.random() < 0.8
        self.last: Actor | None = None
        self.database.vary(dice)

    def run(self) -> None:
        for _ in range(self.dice.choice([2, 2, 3])):
            self.cast.hire()
        for _ in range(2):
            self.do(jobs.Enqueue(self.world, self.cast.new_tasks()))
        while self.left or self.doing:
            self._go_on()
        self._end()

    # -- what is next ------------------------------------------------------------------

    def _go_on(self) -> None:
        ready = self.turns.ready()
        idle = [each for each in self.turns.actors if each.number not in self.doing]
        wants_more = not ready or self.dice.random() < self.eagerness
        if self.left and idle and wants_more:
            self._begin_next(idle[0])
        elif self.left and self.dice.random() < 0.04:
            self.leap(self.dice.choice(LEAPS))
        elif self.left and self.has_faults and self.dice.random() < 0.01:
            self._lose_a_worker()
        elif ready:
            self._let_one_go(ready)

    def _begin_next(self, actor: Actor) -> None:
        self.left -= 1
        found = self.cast.next_job()
        if found is not None:
            worker, job = found
            self.begin(actor, job, worker)

    def _let_one_go(self, ready: list[Actor]) -> None:
        if self.last not in ready or self.dice.random() >= self.patience:
            self.last = self.dice.choice(ready)
        actor = self.last
        assert actor is not None
        assert actor.call is not None
        self.step(actor, self._fault(actor.call) if self.has_faults else None)

    def finished(self, job: Job, answer: Any) -> None:
        if job in self.cast.under_way:
            self.cast.finished(job, answer)

    # -- what goes wrong ---------------------------------------------------------------

    def _fault(self, call: Call) -> Fault | None:
        commits = call.verb == "commit" or not self.database.in_transaction(call.raw)
        if self.dice.random() > (AT_COMMIT if commits else ELSE):
            return None
        self.simulation.faults += 1
        return self._possible(call, self.dice.choice(FAULTS))

    def _possible(self, call: Call, fault: Fault) -> Fault:
        """Return what can happen: after some calls nothing can go wrong any more."""
        if self.database.can_lose_answer(call):
            return fault
        before = {Fault.LOST: Fault.ERROR, Fault.CRASH_AFTER: Fault.CRASH}
        return before.get(fault, fault)

    def _lose_a_worker(self) -> None:
        """Have a worker die with all that it has under way."""
        worker = self.dice.choice(self.cast.workers) if self.cast.workers else None
        mine = [n for n, each in self.doing.items() if worker and each.worker is worker]
        if any(self.turns.actors[n] not in self.turns.ready() for n in mine):
            return  # its statement goes on, and nobody knows when it will end
        self.cast.hire()
        if worker is None:
            return
        self.story.append(f"worker {worker.id[-4:]} dies")
        self.cast.lose(worker)
        for actor in [self.turns.actors[n] for n in mine]:
            if actor.number in self.doing and actor.call is not None:
                fault = self.dice.choice([Fault.CRASH, Fault.CRASH_AFTER])
                self.step(actor, self._possible(actor.call, fault))

    # -- the end -----------------------------------------------------------------------

    def _end(self) -> None:
        """Have all leases be over; a last worker must bring everything to its end."""
        self.leap(LONG)
        me = self.cast.next_worker_id()
        self.do(jobs.Register(self.world, me, 1000 * LONG))
        outcomes: list[Outcome] = []
        for _ in range(MOST_ROUNDS):
            self.do(endings.Rescue(self.world, me, 500))
            self.do(jobs.Promote(self.world, me))
            job = endings.Exchange(self.world, me, outcomes, Demand(100))
            answer: Cycle = self.do(job)
            outcomes = [
                Outcome(task.id, task.lease, Verdict.SUCCESSFUL)
                for task in answer.claimed
            ]
            if not any(row.place == "Task" for row in self.world.sight.tasks.values()):
                break
            self.leap(LONG)
        self.do(endings.SignOff(self.world, me))
        self.world.check_end()
