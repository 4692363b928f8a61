"""Jobs that end runs: completions, rescues, and workers that leave."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db import connection, transaction

from django_jobs.exceptions import StaleLease
from django_jobs.records import Cycle, Demand, Outcome
from django_jobs.states import Verdict
from django_jobs.store.portable import PortableStore
from django_jobs.worker.atomic import run_atomically
from tests.simulation.database import EFFECTS
from tests.simulation.job import Job
from tests.simulation.model import (
    UNKNOWN_TIMEOUT,
    Violation,
    World,
    claimed,
    settled,
)
from tests.simulation.rows import Row, Sight


class Ending(Job):
    """Something that ends runs; it knows with which outcome."""

    def outcome_of(self, key: str, before: Row) -> Outcome | None:
        """Return how this job ends the run of a task, None when it may not."""
        raise NotImplementedError

    def ends(self, key: str, before: Row | None) -> list[Row]:
        """Return what may become of a running task."""
        if before is None or before.state != "RUNNING":
            return []
        outcome = self.outcome_of(key, before)
        if outcome is None:
            return []
        return [settled(before, outcome, is_lost=lost) for lost in self._lost(key)]

    def _lost(self, key: str) -> list[bool]:
        """May a task count as unknown to all? The clock may move while we look."""
        times = self.world.sight.times.get(key)
        if times is None or times.second is None:
            return [False]
        until = times.second + UNKNOWN_TIMEOUT
        return [until <= moment for moment in (self.began, self.world.clock.now)]

    def may(self, key: str, before: Row | None, after: Row | None, new: Sight) -> bool:
        return after in self.ends(key, before)

    def note(self, key: str, before: Row | None, after: Row | None) -> None:
        super().note(key, before, after)
        if before is not None and before.state == "RUNNING":
            outcome = self.outcome_of(key, before)
            assert outcome is not None
            self.world.accept(key, before.lease, outcome.verdict)


class Exchange(Ending):
    """Complete a batch and claim the next one; repeated until it succeeds."""

    is_vital = True

    def __init__(
        self,
        world: World,
        worker_id: str,
        outcomes: Sequence[Outcome],
        demand: Demand | None,
    ) -> None:
        super().__init__(world, worker_id)
        self.outcomes = list(outcomes)
        self.demand = demand

    def work(self, store: PortableStore) -> Any:
        return store.cycle(self.worker_id, self.outcomes, self.demand)

    def outcome_of(self, key: str, before: Row) -> Outcome | None:
        if before.worker != self.worker_id:
            return None
        mine = (each for each in self.outcomes if each.id == key)
        return next((each for each in mine if each.lease == before.lease), None)

    def may(self, key: str, before: Row | None, after: Row | None, new: Sight) -> bool:
        ends = self.ends(key, before)
        if after in ends:
            return True
        if before is None or self.demand is None or not self.was_alive:
            return False
        ready = [row for row in [before, *ends] if row.state == "READY"]
        return after in [claimed(row, self.worker_id) for row in ready]

    def note(self, key: str, before: Row | None, after: Row | None) -> None:
        assert before is not None
        assert after is not None
        if before.state == "RUNNING":
            super().note(key, before, after)
        else:
            Job.note(self, key, before, after)

    def check(self, answer: Cycle) -> None:
        accepted = [
            key
            for key, (before, _) in self.changes.items()
            if before is not None and before.state == "RUNNING"
        ]
        stale = [each.id for each in self.outcomes if each.id not in accepted]
        self.agree(sorted(answer.stale), sorted(stale))
        mine = [
            (key, after.lease)
            for key, (_, after) in self.changes.items()
            if after is not None and after.state == "RUNNING"
        ]
        self.agree(
            sorted((each.id, each.lease) for each in answer.claimed), sorted(mine)
        )
        if len(mine) > (self.demand.limit if self.demand else 0):
            raise Violation(f"{self.name} got {len(mine)} for {self.demand}")


class Reconcile(Exchange):
    """Give back what the database says is ours and we know nothing of."""

    def __init__(self, world: World, worker_id: str, held: set[str]) -> None:
        super().__init__(world, worker_id, [], None)
        self.held = held

    def work(self, store: PortableStore) -> Any:
        self.outcomes = [
            Outcome(task_id, lease, Verdict.RELEASED)
            for task_id, lease in store.held(self.worker_id)
            if task_id not in self.held
        ]
        if not self.outcomes:
            return Cycle([], [])
        return store.cycle(self.worker_id, self.outcomes, None)


class AtomicRun(Ending):
    """Write something and complete the task in one transaction, as a child does."""

    def __init__(self, world: World, worker_id: str, outcome: Outcome) -> None:
        super().__init__(world, worker_id)
        self.outcome = outcome
        self.is_committed = False

    def work(self, store: PortableStore) -> Any:
        def body() -> None:
            transaction.on_commit(self._committed)
            with connection.cursor() as cursor:
                cursor.execute(
                    f"INSERT INTO {EFFECTS} (task_id, lease) VALUES (%s, %s)",
                    [store.to_id(self.outcome.id), self.outcome.lease],
                )
            if not store.complete_here(self.worker_id, self.outcome):
                raise StaleLease

        try:
            run_atomically(store.alias, body, lambda: self.is_committed)
        except StaleLease:
            return False
        return True

    def _committed(self) -> None:
        self.is_committed = True

    def outcome_of(self, key: str, before: Row) -> Outcome | None:
        is_ours = (key, before.lease) == (self.outcome.id, self.outcome.lease)
        return self.outcome if is_ours and before.worker == self.worker_id else None

    def note(self, key: str, before: Row | None, after: Row | None) -> None:
        super().note(key, before, after)
        self.world.atomic.add((key, self.outcome.lease))

    def check(self, answer: Any) -> None:
        self.agree(answer, bool(self.changes))


class Rescue(Ending):
    """Take back what dead workers held."""

    def __init__(self, world: World, worker_id: str, limit: int) -> None:
        super().__init__(world, worker_id)
        self.limit = limit

    def work(self, store: PortableStore) -> Any:
        return store.rescue(self.limit)

    def outcome_of(self, key: str, before: Row) -> Outcome | None:
        if not self.world.is_dead(before.worker):
            return None
        return Outcome(key, before.lease, Verdict.CRASHED)

    def note(self, key: str, before: Row | None, after: Row | None) -> None:
        super().note(key, before, after)
        assert before is not None
        self.world.robbed.add(before.worker or "")

    def check(self, answer: Any) -> None:
        self.agree(sorted(answer), sorted(self.changes))


class SignOff(Ending):
    """Leave: give back what is still held."""

    is_vital = True

    def work(self, store: PortableStore) -> Any:
        return store.sign_off(self.worker_id)

    def outcome_of(self, key: str, before: Row) -> Outcome | None:
        if before.worker != self.worker_id:
            return None
        return Outcome(key, before.lease, Verdict.RELEASED)

    def check(self, answer: Any) -> None:
        self.agree(answer, len(self.changes))
