"""The exchange with the database: outcomes go out, tasks come in.

One round trip does both. Small exchanges are dear, so a little is collected first,
unless a slot waits for it; two may be under way at a time (law 10 of the design).
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from django_jobs import events
from django_jobs.conf import conf
from django_jobs.definitions import find_definition
from django_jobs.records import ClaimedTask, Cycle, Demand, Outcome
from django_jobs.states import Verdict
from django_jobs.store import Store
from django_jobs.worker.completer import Completer, Job
from django_jobs.worker.dispatcher import MOST_CLAIMED, Dispatcher
from django_jobs.worker.options import WorkerOptions
from django_jobs.worker.promotion import Promotion
from django_jobs.worker.reconciling import Reconciling, say_stale
from django_jobs.worker.strays import UNKNOWN_WAIT
from django_jobs.worker.turns import Turns
from django_jobs.worker.unwritten import Unwritten

logger = logging.getLogger("django_jobs")

#: Collect outcomes and room for so long, in seconds, or up to so many.
LINGER = 0.005
ENOUGH = 100
#: Look again so soon after a wake-up: a producer sends one per few milliseconds only.
SECOND_LOOK = 0.006


@dataclass(frozen=True, eq=False, slots=True)
class _Trip:
    """What goes to the database, and what is asked for."""

    worker_id: str
    outcomes: Sequence[Outcome]
    demand: Demand | None
    begun: float

    @property
    def wanted(self) -> int:
        return self.demand.limit if self.demand else 0

    @property
    def due(self) -> float | None:
        """When the first task is due that is to run again later."""
        delays = [outcome.delay for outcome in self.outcomes if outcome.delay]
        return self.begun + min(delays) if delays else None


class Exchange:
    """Outcomes to write, the wish to claim, and what is under way."""

    def __init__(
        self,
        completer: Completer,
        dispatcher: Dispatcher,
        options: WorkerOptions,
        held: Callable[[], set[str]],
        allowance: Callable[[], int],
    ) -> None:
        self.completer = completer
        self.dispatcher = dispatcher
        self.worker_id = ""
        #: False before the worker is registered and while it stops.
        self.is_claiming = False
        self.has_notifications = False
        self._turns = Turns(options)
        #: Names that were said to be unknown, once each.
        self._unknown: set[str] = set()
        self._allowance = allowance
        self._outcomes: list[Outcome] = []
        self._unwritten = Unwritten()
        self._oldest_outcome = 0.0
        self._asked_for = 0
        self._claims = 0
        self._last_start = 0.0
        # When to look for tasks next, and the newest reason to believe in some.
        self._is_hungry = True
        self._next_look = 0.0
        self._woken = 0.0
        self._pause = 0.0
        self._promotion = Promotion(
            completer, options, dispatcher.demand, self._found, self._longest_pause
        )
        self._reconciling = Reconciling(
            completer, lambda: held() | self.unwritten, self.write_as
        )

    # -- what happens ----------------------------------------------------------------

    def add(self, outcome: Outcome, worker_id: str | None = None) -> None:
        """Take an outcome to be written, perhaps of a former identity of ours."""
        if worker_id is not None and worker_id != self.worker_id:
            self.write_as(worker_id, [outcome])
            return
        if not self._outcomes:
            self._oldest_outcome = time.monotonic()
        self._outcomes.append(outcome)

    def become(self, worker_id: str) -> None:
        """Go on under another identity; what waits to be written is of the former."""
        if self._outcomes:
            outcomes, self._outcomes = self._outcomes, []
            self.write_as(self.worker_id, outcomes)
        self.worker_id = worker_id

    def wake(self) -> None:
        """Look for tasks: there may be some."""
        now = time.monotonic()
        self._is_hungry = True
        self._woken = now
        self._pause = 0.0
        self._next_look = now + SECOND_LOOK
        self._promotion.wake(now)

    @property
    def is_idle(self) -> bool:
        """Nothing to write, nothing under way, and nothing was found last."""
        return self.is_settled and not self._is_hungry

    @property
    def is_settled(self) -> bool:
        """Every outcome is written."""
        return not (self._outcomes or self._unwritten or self.completer.in_flight)

    @property
    def unwritten(self) -> set[str]:
        """The ids of tasks that ended, and of whose outcome nothing is known yet."""
        return self._unwritten.ids | {outcome.id for outcome in self._outcomes}

    # -- when to exchange ------------------------------------------------------------

    def turn(self, now: float) -> None:
        """Start what is worthwhile now."""
        self._retry_locked(now)
        self._reconciling.turn(now, self.worker_id)
        if self.is_claiming:
            if now >= self._next_look:
                self._is_hungry = True
            self._promotion.turn(now)
        while self.completer.is_free and self._is_worthwhile(now):
            self._start(now)

    def next_turn(self, now: float) -> float:
        """Return when to call ``turn`` again, if nothing happens before."""
        if self._outcomes or (self._is_hungry and self._wanted(now) > 0):
            return now + LINGER
        if not self.is_claiming:
            return min(now + 1, self._unwritten.next_try)
        times = [self._promotion.next_turn, self._unwritten.next_try]
        if not self._is_hungry:
            times.append(self._next_look)
        return max(now + LINGER, min(times))

    def _is_worthwhile(self, now: float) -> bool:
        wanted = self._wanted(now)
        if not self._outcomes and not wanted:
            return False
        if len(self._outcomes) >= ENOUGH or wanted >= ENOUGH:
            return True
        if self._outcomes and now - self._oldest_outcome >= LINGER:
            return True
        if self._claims or len(self.dispatcher):
            return False
        if wanted and now - self._last_start >= LINGER:
            return True
        # A child has nothing to do, or no outcome will come: no reason to collect.
        loads = [child.load for child in self.dispatcher.pool if child.is_ready]
        return not all(loads) or not any(loads)

    def _wanted(self, now: float) -> int:
        if not (self.is_claiming and self._is_hungry):
            return 0
        wanted = min(MOST_CLAIMED, self.dispatcher.demand(now), self._allowance())
        return max(0, wanted - self._asked_for)

    # -- one exchange ----------------------------------------------------------------

    def _start(self, now: float) -> None:
        outcomes, self._outcomes = self._outcomes, []
        wanted = self._wanted(now)
        demand = self._turns.demand(wanted) if wanted else None
        trip = _Trip(self.worker_id, outcomes, demand, now)
        self._last_start = now
        self._asked_for += trip.wanted

        def work(store: Store) -> Cycle:
            # Asked as the statement is sent: it may be the tenth attempt.
            is_ours = self.is_claiming and trip.worker_id == self.worker_id
            wanted = demand if is_ours else None
            return store.cycle(trip.worker_id, outcomes, wanted, again=job.failures > 0)

        self._unwritten.begin(outcomes)
        if demand:
            self._claims += 1
            self._reconciling.begin(trip)
        job = Job("exchange", work, lambda cycle: self._finish(job, trip, cycle))
        self.completer.submit(job)

    def _finish(self, job: Job, trip: _Trip, cycle: Cycle) -> None:
        self._reconciling.end(trip, cycle.claimed)
        self._asked_for -= trip.wanted
        self._claims -= trip.wanted > 0
        if job.is_doubtful:
            # The answer to a commit may have been lost, with tasks claimed by it.
            self._reconciling.doubt(trip.worker_id)
        self._written(trip, cycle, is_first=not job.failures)
        now = time.monotonic()
        if trip.worker_id != self.worker_id or not self.is_claiming:
            self._release(trip.worker_id, cycle.claimed)
            return
        if trip.wanted:
            self._note_appetite(job, len(cycle.claimed), now)
        runnable = [task for task in cycle.claimed if self._can_run(task)]
        self.dispatcher.take(runnable, now)

    def _written(self, trip: _Trip, cycle: Cycle, *, is_first: bool) -> None:
        """Take what an exchange says of its outcomes."""
        now = time.monotonic()
        self._unwritten.end(trip.worker_id, trip.outcomes, cycle.locked, now)
        self._promotion.expect(trip.due)
        if is_first:
            say_stale(cycle.stale)
        elif cycle.stale:
            # The news that they were written may have been lost. Or some were written
            # one by one, before others were in the way.
            self._reconciling.doubt(trip.worker_id, cycle.stale)

    def _can_run(self, task: ClaimedTask) -> bool:
        if task.is_expired:
            keep = conf().RESULT_RETENTION
            self.add(Outcome(task.id, task.lease, Verdict.EXPIRED, retention=keep))
            return False
        if find_definition(task.name) is None:
            # During a deploy, another worker may know it.
            self._say_unknown(task.name)
            wait = UNKNOWN_WAIT * random.uniform(0.5, 1.5)  # noqa: S311 - jitter
            self.add(Outcome(task.id, task.lease, Verdict.UNKNOWN, delay=wait))
            return False
        return True

    def _note_appetite(self, job: Job, found: int, now: float) -> None:
        if found:
            self._pause = 0.0
            self._next_look = now
            return
        if self._woken < job.started:
            self._is_hungry = False
            second_look = self._woken + SECOND_LOOK
            is_ahead = now < second_look
            self._next_look = second_look if is_ahead else now + self._next_pause()

    def _found(self) -> None:
        """Claim: tasks became READY."""
        self._is_hungry = True
        self._woken = time.monotonic()

    def _next_pause(self) -> float:
        longer = self._pause * 1.5 if self._pause else conf().POLL_FASTEST
        self._pause = min(longer, self._longest_pause())
        return self._pause

    def _longest_pause(self) -> float:
        settings = conf()
        return settings.POLL if self.has_notifications else settings.POLL_SLOWEST

    def _say_unknown(self, name: str) -> None:
        if name not in self._unknown:
            self._unknown.add(name)
            events.log(
                logger,
                logging.WARNING,
                "unknown_task",
                task=name,
                hint="tasks are found in the tasks module of an installed app; "
                "import other modules there",
            )

    def _release(self, worker_id: str, tasks: list[ClaimedTask]) -> None:
        """Give tasks back that came too late for us."""
        if tasks:
            back = [Outcome(task.id, task.lease, Verdict.RELEASED) for task in tasks]
            self.write_as(worker_id, back)

    def write_as(self, worker_id: str, outcomes: list[Outcome]) -> None:
        """Write outcomes by themselves: of another identity of ours, or once more."""
        trip = _Trip(worker_id, outcomes, None, time.monotonic())
        self._unwritten.begin(outcomes)
        self.completer.submit(
            Job(
                "write",
                work=lambda store: store.cycle(worker_id, outcomes, None, again=True),
                finish=lambda cycle: self._written(trip, cycle, is_first=False),
            )
        )

    def _retry_locked(self, now: float) -> None:
        for worker_id, outcomes in self._unwritten.due(now).items():
            self.write_as(worker_id, outcomes)
