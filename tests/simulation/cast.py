"""Who does what next: workers as they behave, operators as they please."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from django_jobs.records import ClaimedTask, Cycle, Demand, NewTask, Outcome
from django_jobs.states import Verdict
from tests.simulation import endings, jobs
from tests.simulation.job import Job
from tests.simulation.model import World

#: Seconds that a lease lasts.
LEASE = 30.0
#: So many tasks are enqueued at most.
MOST_TASKS = 6
#: How many exchanges a worker has under way at most.
LANES = 2
DEMANDS = [
    None,
    Demand(1),
    Demand(3),
    Demand(2, ("a",)),
    Demand(2, ("b", "a")),
    Demand(2, ("a", "b"), is_strict=True),
    Demand(2, exclude=("b",)),
]
#: What becomes of a run, and how often.
VERDICTS = {
    Verdict.SUCCESSFUL: 8,
    Verdict.RETRY: 3,
    Verdict.FAILED: 3,
    Verdict.CRASHED: 2,
    Verdict.SNOOZED: 1,
    Verdict.INTERRUPTED: 1,
    Verdict.RELEASED: 2,
    Verdict.UNKNOWN: 1,
}
#: These come from a worker that has not started the run.
UNSTARTED = (Verdict.RELEASED, Verdict.UNKNOWN, Verdict.EXPIRED)


def worker_id(number: int) -> str:
    return f"01900000-0000-7000-8000-00000000f{number:03x}"


def task_id(number: int) -> str:
    return f"01900000-0000-7000-8000-00000000{number:04x}"


class Worker:
    """A worker: what it has, and what it has under way."""

    def __init__(self, cast: Cast, key: str) -> None:
        self.cast = cast
        self.dice = cast.dice
        self.world = cast.world
        self.id = key
        self.held: dict[str, ClaimedTask] = {}
        #: What it sent last: a call may be made twice.
        self.sent: list[Outcome] = []
        self.under_way: list[Job] = []
        #: Outcomes to be written under an id that may not be its own any more.
        self.strays: list[tuple[str, list[Outcome]]] = []
        self.is_registered = False
        self.must_reconcile = False

    # -- what it does next -------------------------------------------------------------

    def next_job(self) -> Job | None:
        if self._has(jobs.Register, endings.SignOff, endings.Reconcile):
            return None
        if self.strays:
            return endings.Exchange(self.world, *self.strays.pop(0), None)
        if not self.is_registered:
            return jobs.Register(self.world, self.id, LEASE)
        if self.must_reconcile:
            return self._reconcile()
        choices: dict[Callable[[], Job | None], int] = {
            self._exchange: 12,
            self._atomic: 3,
            self._repeat: 1,
            self._say: 1,
            self._renew: 2,
            self._rescue: 3,
            self._promote: 2,
            self._prune: 2,
            self._sign_off: 1,
        }
        (choice,) = self.dice.choices(list(choices), list(choices.values()))
        return choice()

    def _has(self, *kinds: type[Job]) -> bool:
        return any(isinstance(job, kinds) for job in self.under_way)

    def _exchange(self) -> Job | None:
        if sum(isinstance(job, endings.Exchange) for job in self.under_way) >= LANES:
            return None
        done = [task for task in self.held.values() if self.dice.random() < 0.6]
        for task in done:
            del self.held[task.id]
        self.sent = [self._outcome(task) for task in done] or self.sent
        outcomes = self.sent if done else []
        demand = self.dice.choice(DEMANDS)
        return endings.Exchange(self.world, self.id, outcomes, demand)

    def _outcome(self, task: ClaimedTask) -> Outcome:
        (verdict,) = self.dice.choices(list(VERDICTS), list(VERDICTS.values()))
        row = self.world.sight.tasks.get(task.id)
        if row and row.is_revoked and self.dice.random() < 0.5:
            verdict = Verdict.REVOKED
        if task.is_expired:
            verdict = Verdict.EXPIRED
        return self._told(task, verdict)

    def _told(self, task: ClaimedTask, verdict: Verdict) -> Outcome:
        value = f'"{task.id[-4:]} {task.lease}"'
        is_later = verdict in (Verdict.RETRY, Verdict.SNOOZED, Verdict.UNKNOWN)
        return Outcome(
            task.id,
            task.lease,
            verdict,
            started=0.0 if verdict in UNSTARTED else self.world.clock.monotonic(),
            return_value=value if verdict is Verdict.SUCCESSFUL else None,
            delay=self.dice.choice([0.0, 5.0]) if is_later else 0.0,
            retention=self.dice.choice([0.0, 40.0, None]),
        )

    def _atomic(self) -> Job | None:
        if not self.held:
            return None
        task = self.held.pop(self.dice.choice(list(self.held)))
        told = self._told(task, Verdict.SUCCESSFUL)
        return endings.AtomicRun(self.world, self.id, told)

    def _repeat(self) -> Job | None:
        if not self.sent:
            return None
        return endings.Exchange(self.world, self.id, self.sent, None)

    def _say(self) -> Job | None:
        if not self.held:
            return None
        task = self.held[self.dice.choice(list(self.held))]
        return jobs.Say(self.world, self.id, task.id, task.lease)

    def _renew(self) -> Job | None:
        if self._has(jobs.Renew):
            return None
        return jobs.Renew(self.world, self.id, LEASE)

    def _rescue(self) -> Job:
        return endings.Rescue(self.world, self.id, self.dice.choice([1, 500]))

    def _promote(self) -> Job:
        return jobs.Promote(self.world, self.id)

    def _prune(self) -> Job | None:
        # A task that was pruned is forgotten: an insert that is repeated would bring
        # it back. Retentions are longer than anybody repeats an insert.
        if self.cast.is_inserting():
            return None
        older_than = self.dice.choice([None, None, 0.0, 10.0])
        limit = self.dice.choice([1, 1000])
        return jobs.Prune(self.world, self.id, limit, older_than)

    def _sign_off(self) -> Job | None:
        if self.under_way:
            return None
        return endings.SignOff(self.world, self.id)

    def _reconcile(self) -> Job | None:
        # With nothing else under way: what comes in must not look unknown.
        if self.under_way:
            return None
        self.must_reconcile = False
        return endings.Reconcile(self.world, self.id, set(self.held))

    # -- what it learns ----------------------------------------------------------------

    def finished(self, job: Job, answer: Any) -> None:
        self.under_way.remove(job)
        if isinstance(job, jobs.Register):
            self.is_registered = True
        elif isinstance(job, endings.SignOff):
            self.cast.workers.remove(self)
        elif isinstance(job, endings.Exchange):
            self._exchanged(job, answer)
        elif isinstance(job, jobs.Renew) and answer is False:
            if job.worker_id == self.id:
                self._start_anew()
        elif isinstance(job, endings.AtomicRun) and answer is not True:
            # It is said to have failed; whether it did is for the database to say.
            failed = job.outcome._replace(verdict=Verdict.RETRY, return_value=None)
            self.strays.append((job.worker_id, [failed]))

    def _exchanged(self, job: endings.Exchange, answer: Cycle) -> None:
        if job.worker_id != self.id:
            back = [self._told(task, Verdict.RELEASED) for task in answer.claimed]
            self.strays.append((job.worker_id, back))
            return
        self.held |= {task.id: task for task in answer.claimed}
        # The answer to a commit may have been lost, and tasks claimed by it.
        self.must_reconcile |= job.failures > 0

    def _start_anew(self) -> None:
        """Stop all that runs, and go on as somebody else."""
        done = [task for task in self.held.values() if self.dice.random() < 0.5]
        self.strays.append((self.id, [self._outcome(task) for task in done]))
        self.held.clear()
        self.sent = []
        self.is_registered = self.must_reconcile = False
        self.id = self.cast.next_worker_id()


class Cast:
    """All who take part."""

    def __init__(self, dice: random.Random, world: World) -> None:
        self.dice = dice
        self.world = world
        self.workers: list[Worker] = []
        #: What operators have under way.
        self.under_way: list[Job] = []
        #: Ids of workers whose process is known to be dead.
        self.dead: list[str] = []
        self._worker_count = 0
        self._task_ids: list[str] = []

    def next_worker_id(self) -> str:
        self._worker_count += 1
        return worker_id(self._worker_count)

    def hire(self) -> Worker:
        worker = Worker(self, self.next_worker_id())
        self.workers.append(worker)
        return worker

    def lose(self, worker: Worker) -> None:
        """Have the process of a worker be dead."""
        self.workers.remove(worker)
        self.dead.append(worker.id)

    def is_inserting(self) -> bool:
        return any(isinstance(job, jobs.Enqueue) for job in self.under_way)

    # -- what is next ------------------------------------------------------------------

    def next_job(self) -> tuple[Worker | None, Job] | None:
        """Return somebody's next job, and whose; None if nobody has one just now."""
        worker = self.dice.choice([None, *self.workers, *self.workers])
        job = self._operate() if worker is None else worker.next_job()
        if job is None:
            return None
        (worker or self).under_way.append(job)
        return worker, job

    def _operate(self) -> Job | None:
        choices: dict[Callable[[], Job | None], int] = {
            self._enqueue: 3,
            self._enqueue_in_transaction: 1,
            self._revoke: 3,
            self._requeue: 3,
            self._expire: 1,
        }
        (choice,) = self.dice.choices(list(choices), list(choices.values()))
        return choice()

    def new_tasks(self) -> list[NewTask]:
        return [self._new_task() for _ in range(self.dice.choice([1, 1, 2]))]

    def _new_task(self) -> NewTask:
        dice = self.dice
        self._task_ids.append(task_id(len(self._task_ids) + 1))
        return NewTask(
            id=self._task_ids[-1],
            name="task",
            queue_name=dice.choice("ab"),
            priority=dice.choice([0, 0, 5]),
            args="[]",
            kwargs="{}",
            summary="",
            max_attempts=9,
            delay=dice.choice([None, None, 5.0]),
            expires_in=dice.choice([None, None, None, 20.0]),
        )

    def _enqueue(self) -> Job | None:
        if len(self._task_ids) >= MOST_TASKS or self._is_pruning():
            return None
        return jobs.Enqueue(self.world, self.new_tasks())

    def _enqueue_in_transaction(self) -> Job | None:
        if len(self._task_ids) >= MOST_TASKS or self._is_pruning():
            return None
        is_kept = self.dice.random() < 0.7
        return jobs.EnqueueInTransaction(self.world, self.new_tasks(), is_kept=is_kept)

    def _is_pruning(self) -> bool:
        under_way = [job for worker in self.workers for job in worker.under_way]
        return any(isinstance(job, jobs.Prune) for job in under_way)

    def _revoke(self) -> Job | None:
        return jobs.Revoke(self.world, self._some_ids()) if self._task_ids else None

    def _requeue(self) -> Job | None:
        tasks = self.world.sight.tasks.items()
        dead = [key for key, row in tasks if row.place == "DeadLetter"]
        if not dead and self.dice.random() < 0.7:
            return None  # mostly of use for what is dead
        return jobs.Requeue(self.world, dead or self._some_ids())

    def _expire(self) -> Job | None:
        return jobs.Expire(self.world, "", self.dead) if self.dead else None

    def _some_ids(self) -> list[str]:
        count = self.dice.choice([1, 1, 2])
        return self.dice.choices(self._task_ids, k=count) if self._task_ids else []

    def finished(self, job: Job, answer: Any) -> None:
        """Take note of an operator's job."""
        self.under_way.remove(job)
