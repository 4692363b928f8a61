"""What may become of a task: told from the documentation, not from the store.

The world keeps what was seen last. After each commit it looks again, and each
difference must be explained by the job that made it; else that is a violation.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import TYPE_CHECKING

from django_jobs.records import Outcome
from django_jobs.states import MOVES, Reason, State, Verdict
from tests.simulation.clock import Clock
from tests.simulation.database import SETTINGS
from tests.simulation.rows import Doubled, Row, Sight, kept_attempts, look

if TYPE_CHECKING:
    from tests.simulation.job import Job

BUDGET = SETTINGS["CRASH_BUDGET"]
UNKNOWN_TIMEOUT = timedelta(seconds=SETTINGS["UNKNOWN_TASK_TIMEOUT"])
#: The run leaves an Attempt behind.
RECORDED = {Verdict.FAILED, Verdict.RETRY, Verdict.CRASHED, Verdict.INTERRUPTED}
#: The attempt does not count; of the last two, if it never started.
REFUNDED = {
    Verdict.SNOOZED,
    Verdict.INTERRUPTED,
    Verdict.RELEASED,
    Verdict.UNKNOWN,
}
#: The verdict is the end, whatever was asked for.
ENDS = {
    Verdict.SUCCESSFUL: State.SUCCESSFUL,
    Verdict.REVOKED: State.REVOKED,
    Verdict.EXPIRED: State.EXPIRED,
}


class Violation(AssertionError):
    """Something happened that is promised not to happen."""


class World:
    """What was seen of the tables so far, and what it came from."""

    def __init__(self, clock: Clock, *, has_single_writer: bool) -> None:
        self.clock = clock
        self.has_single_writer = has_single_writer
        self.sight = Sight()
        #: Every task that ever was, and those that were deleted when they were old.
        self.known: set[str] = set()
        self.pruned: set[str] = set()
        #: Tasks whose insert was answered.
        self.acked: set[str] = set()
        #: (id, lease) of the runs whose outcome was accepted; of atomic ones.
        self.accepted: set[tuple[str, int]] = set()
        self.atomic: set[tuple[str, int]] = set()
        #: Verdicts that left an Attempt, by task, as long as it is not pruned.
        self.attempts: dict[str, list[str]] = {}
        #: Workers whose tasks were taken away from them.
        self.robbed: set[str] = set()

    # -- what is so ------------------------------------------------------------------

    def is_alive(self, worker_id: str) -> bool:
        """May this worker claim, and go on?"""
        lease = self.sight.workers.get(worker_id)
        if lease is None or lease.state == "dead":
            return False
        return self.has_single_writer or lease.expires_at > self.clock.now

    def is_dead(self, worker_id: str | None) -> bool:
        """May others take the tasks of this worker?"""
        lease = self.sight.workers.get(worker_id or "")
        return lease is None or lease.expires_at <= self.clock.now

    # -- what changes ----------------------------------------------------------------

    def observe(self, jobs: Iterable[Job]) -> list[str]:
        """Look at the tables after a commit of one of the jobs; tell what changed."""
        try:
            new = look()
        except Doubled as error:
            raise Violation(str(error)) from None
        old = self.sight
        changes = []
        for key in sorted({*old.tasks, *new.tasks}):
            before, after = old.tasks.get(key), new.tasks.get(key)
            if before != after:
                self._explain(key, before, after, new, list(jobs))
                changes.append(f"{key[-4:]}: {_short(before)} -> {_short(after)}")
        self.sight = new
        self._check_effects()
        return changes

    def _explain(
        self,
        key: str,
        before: Row | None,
        after: Row | None,
        new: Sight,
        jobs: list[Job],
    ) -> None:
        told = f"{key[-4:]}: {before} -> {after}"
        _check_move(told, before, after)
        for job in jobs:
            if job.may(key, before, after, new):
                self._note(key, before, after)
                job.note(key, before, after)
                return
        names = ", ".join(job.name for job in jobs)
        raise Violation(f"{names} cannot have made this change: {told}")

    def _note(self, key: str, before: Row | None, after: Row | None) -> None:
        if after is None:
            self.pruned.add(key)
            self.attempts.pop(key, None)
        elif before is None:
            self.known.add(key)
            self.pruned.discard(key)

    def accept(self, key: str, lease: int, verdict: Verdict) -> None:
        """Note that a run has ended."""
        if (key, lease) in self.accepted:
            raise Violation(f"{key[-4:]}: lease {lease} was completed twice")
        self.accepted.add((key, lease))
        if verdict in RECORDED:
            self.attempts.setdefault(key, []).append(str(verdict))

    def _check_effects(self) -> None:
        if sorted(self.sight.effects) != sorted(self.atomic):
            raise Violation(
                f"effects {self.sight.effects} of atomic runs {sorted(self.atomic)}"
            )

    # -- the end -----------------------------------------------------------------------

    def check_end(self) -> None:
        """Check what must hold when nothing is left to do."""
        tasks = self.sight.tasks
        problems = {
            "tasks that never ended": {
                key for key, row in tasks.items() if row.place == "Task"
            },
            "tasks that are lost": (self.acked | self.known)
            - tasks.keys()
            - self.pruned,
            "workers that are left": set(self.sight.workers),
        }
        for problem, ids in problems.items():
            if ids:
                raise Violation(f"{problem}: {sorted(ids)}")
        kept = kept_attempts()
        if kept != self.attempts:
            raise Violation(f"attempts: {kept} instead of {self.attempts}")


def _check_move(told: str, before: Row | None, after: Row | None) -> None:
    """Check what holds of any change, whoever makes it."""
    if before is None or after is None:
        return
    if after.lease < before.lease or after.lease > before.lease + 1:
        raise Violation(f"a lease that jumps: {told}")
    moves = MOVES[State(before.state)]
    is_claimed_again = before.state == after.state == State.RUNNING
    if before.state != after.state and State(after.state) not in moves:
        raise Violation(f"no such move: {told}")
    if is_claimed_again and after.lease == before.lease and not after.is_revoked:
        raise Violation(f"a running task that changed: {told}")


def claimed(row: Row, worker_id: str) -> Row:
    """Return a READY task as a claim makes it."""
    return row._replace(
        state="RUNNING",
        attempt=row.attempt + 1,
        lease=row.lease + 1,
        worker=worker_id,
    )


def settled(row: Row, outcome: Outcome, *, is_lost: bool = False) -> Row:
    """Return a RUNNING task as its outcome makes it."""
    verdict = outcome.verdict
    has_run = outcome.started > 0 or verdict in RECORDED
    is_refunded = verdict in REFUNDED or (
        verdict in (Verdict.EXPIRED, Verdict.REVOKED) and not has_run
    )
    counted = row._replace(
        attempt=row.attempt - is_refunded,
        crashes=row.crashes + (verdict is Verdict.CRASHED),
        is_revoked=False,
        value=None,
    )
    if verdict in ENDS:
        value = outcome.return_value
        return counted._replace(place="Result", state=str(ENDS[verdict]), value=value)
    if row.is_revoked:
        return counted._replace(place="Result", state="REVOKED", value=None)
    if (reason := _reason(counted, verdict, is_lost=is_lost)) is not None:
        return counted._replace(place="DeadLetter", state="FAILED", value=str(reason))
    state = "SCHEDULED" if outcome.delay > 0 else "READY"
    return counted._replace(state=state, worker=None)


def _reason(counted: Row, verdict: Verdict, *, is_lost: bool) -> Reason | None:
    """Return why a task is a dead letter now, if it is one."""
    if verdict is Verdict.FAILED:
        return Reason.ATTEMPTS
    if verdict is Verdict.CRASHED and counted.crashes >= BUDGET:
        return Reason.CRASHES
    if verdict is Verdict.UNKNOWN and is_lost:
        return Reason.UNKNOWN_TASK
    return None


def _short(row: Row | None) -> str:
    if row is None:
        return "-"
    numbers = f"{row.attempt}/{row.crashes}/{row.lease}"
    who = f" by {row.worker[-4:]}" if row.worker else ""
    return f"{row.state} {numbers}{who}{' stop' if row.is_revoked else ''}"
