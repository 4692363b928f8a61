"""Where a verdict sends a task: decided here, written elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from django_jobs.conf import conf
from django_jobs.records import Outcome
from django_jobs.states import (
    RECORDED_VERDICTS,
    REFUNDED_VERDICTS,
    Reason,
    State,
    Verdict,
)

#: Seconds: longer than any time that is kept, short enough for every database.
FOREVER = 10_000 * 86_400.0

_RESULTS = {
    Verdict.SUCCESSFUL: State.SUCCESSFUL,
    Verdict.REVOKED: State.REVOKED,
    Verdict.EXPIRED: State.EXPIRED,
}
#: Verdicts after which a task keeps its place in the line.
_IN_PLACE = frozenset({Verdict.INTERRUPTED, Verdict.RELEASED, Verdict.UNKNOWN})


class Held(NamedTuple):
    """What must be known of a running task to complete it; its row is locked."""

    id: str
    lease: int
    crashes: int
    revoke_requested: bool
    is_lost: bool  #: unknown to every worker for too long


class Move(NamedTuple):
    """What is to be written for a task."""

    id: str
    outcome: Outcome
    state: State
    reason: Reason | None
    refund: int  #: attempts given back
    crash: int  #: crashes added
    has_run: bool
    started: float  #: seconds ago; before its claim when that is not known
    finished: float  #: seconds ago
    retention: float | None

    @property
    def is_recorded(self) -> bool:
        return self.outcome.verdict in RECORDED_VERDICTS

    @property
    def keeps_place(self) -> bool:
        return self.outcome.delay <= 0 and self.outcome.verdict in _IN_PLACE

    @property
    def prune_in(self) -> float | None:
        """Seconds from now until the row may be pruned."""
        return None if self.retention is None else self.retention - self.finished


def success_times(
    outcomes: Iterable[Outcome],
) -> Iterator[tuple[float, float, float | None]]:
    """Yield per successful run when it started, when it finished and when its result
    may be pruned, in seconds from now.
    """
    now = time.monotonic()
    for outcome in outcomes:
        started = outcome.started - now if outcome.started else -FOREVER
        finished = outcome.finished - now if outcome.finished else 0.0
        kept = outcome.retention
        prune_in = None if kept is None else min(kept, FOREVER) + finished
        yield max(started, -FOREVER), max(finished, -FOREVER), prune_in


def is_success(outcome: Outcome) -> bool:
    return outcome.verdict is Verdict.SUCCESSFUL


def decide(held: Held, outcome: Outcome) -> Move:
    """Return what becomes of a task after this outcome."""
    verdict, now = outcome.verdict, time.monotonic()
    state, reason = _destination(held, outcome)
    has_run = outcome.started > 0 or verdict in RECORDED_VERDICTS
    is_crash = verdict is Verdict.CRASHED or reason is Reason.CRASHES
    return Move(
        id=held.id,
        outcome=outcome,
        state=state,
        reason=reason,
        refund=int(_is_refunded(verdict, has_run)),
        crash=int(is_crash),
        has_run=has_run,
        started=_ago(now, outcome.started) if outcome.started > 0 else FOREVER,
        finished=_ago(now, outcome.finished) if outcome.finished > 0 else 0.0,
        retention=_retention(outcome, state),
    )


def _destination(held: Held, outcome: Outcome) -> tuple[State, Reason | None]:
    verdict = outcome.verdict
    if verdict in _RESULTS:
        return _RESULTS[verdict], None
    if held.revoke_requested:
        return State.REVOKED, None
    if verdict is Verdict.FAILED:
        return State.FAILED, outcome.reason or Reason.ATTEMPTS
    if verdict is Verdict.CRASHED and held.crashes + 1 >= conf().CRASH_BUDGET:
        return State.FAILED, Reason.CRASHES
    if verdict is Verdict.UNKNOWN and held.is_lost:
        return State.FAILED, Reason.UNKNOWN_TASK
    return (State.SCHEDULED if outcome.delay > 0 else State.READY), None


def _is_refunded(verdict: Verdict, has_run: bool) -> bool:
    if verdict in (Verdict.EXPIRED, Verdict.REVOKED):
        return not has_run
    return verdict in REFUNDED_VERDICTS


def _retention(outcome: Outcome, state: State) -> float | None:
    if state is State.FAILED:
        kept = conf().DEAD_LETTER_RETENTION
    elif outcome.verdict in _RESULTS:
        kept = outcome.retention
    else:
        kept = conf().RESULT_RETENTION
    return None if kept is None else min(kept, FOREVER)


def _ago(now: float, moment: float) -> float:
    return min(max(0.0, now - moment), FOREVER)
