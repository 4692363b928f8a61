"""A worker's part done by hand: claim a task, and say what became of it."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from django_jobs.records import ClaimedTask, Demand, NewWorker, Outcome
from django_jobs.states import Verdict
from django_jobs.store import get_store


class Hands:
    """A registered worker that does only what it is told."""

    def __init__(self, alias: str | None = None) -> None:
        self.store = get_store(alias)
        self.id = str(uuid4())
        self.store.register(
            NewWorker(self.id, "hands", "host", 1, "", "", "1", "", 1, 1, 0), 60.0
        )

    def claim(self) -> ClaimedTask:
        """Claim the task that is next; there must be one."""
        (claimed,) = self.store.cycle(self.id, [], Demand(1)).claimed
        return claimed

    def complete(
        self, claimed: ClaimedTask, verdict: Verdict = Verdict.SUCCESSFUL, **more: Any
    ) -> None:
        outcome = Outcome(claimed.id, claimed.lease, verdict, **more)
        assert self.store.cycle(self.id, [outcome], None).stale == []

    def run(self, verdict: Verdict = Verdict.SUCCESSFUL, **more: Any) -> ClaimedTask:
        """Claim the next task and complete it."""
        claimed = self.claim()
        self.complete(claimed, verdict, **more)
        return claimed
