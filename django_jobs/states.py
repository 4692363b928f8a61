"""The states of a task and the moves that are allowed between them."""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """Where a task is in its life; the first four are live, the others terminal."""

    READY = "READY"
    SCHEDULED = "SCHEDULED"
    BLOCKED = "BLOCKED"
    RUNNING = "RUNNING"
    SUCCESSFUL = "SUCCESSFUL"
    REVOKED = "REVOKED"
    EXPIRED = "EXPIRED"
    FAILED = "FAILED"

    @property
    def is_finished(self) -> bool:
        return self in TERMINAL_STATES


#: Rows of ``Task``.
LIVE_STATES = frozenset({State.READY, State.SCHEDULED, State.BLOCKED, State.RUNNING})
#: Rows of ``Result``.
RESULT_STATES = frozenset({State.SUCCESSFUL, State.REVOKED, State.EXPIRED})
#: Rows of ``Result`` and of ``DeadLetter``.
TERMINAL_STATES = RESULT_STATES | {State.FAILED}

#: From which state a task may move to which. FAILED moves on only by ``requeue()``.
MOVES: dict[State, frozenset[State]] = {
    State.READY: frozenset({State.RUNNING, State.REVOKED}),
    State.SCHEDULED: frozenset({State.READY, State.REVOKED}),
    State.BLOCKED: frozenset({State.READY, State.SCHEDULED, State.REVOKED}),
    State.RUNNING: frozenset({State.READY, State.SCHEDULED}) | TERMINAL_STATES,
    State.SUCCESSFUL: frozenset(),
    State.REVOKED: frozenset(),
    State.EXPIRED: frozenset(),
    State.FAILED: frozenset({State.READY}),
}


class Verdict(StrEnum):
    """What an attempt came to, as the worker reports it to the store.

    The first four end the task, the others put it back to work.
    """

    SUCCESSFUL = "successful"  #: -> Result SUCCESSFUL
    REVOKED = "revoked"  #: -> Result REVOKED
    EXPIRED = "expired"  #: -> Result EXPIRED, never started
    FAILED = "failed"  #: -> DeadLetter
    RETRY = "retry"  #: again after a delay; the attempt counts
    CRASHED = "crashed"  #: again after a delay; counts against the crash budget
    SNOOZED = "snoozed"  #: again after a delay; the attempt is refunded
    INTERRUPTED = "interrupted"  #: again at once; the attempt is refunded
    RELEASED = "released"  #: never started: back with the attempt refunded
    UNKNOWN = "unknown"  #: as RELEASED, for a worker that knows the task's name


#: Verdicts that leave a row of ``Attempt`` (unsuccessful, and it did run).
RECORDED_VERDICTS = frozenset(
    {Verdict.FAILED, Verdict.RETRY, Verdict.CRASHED, Verdict.INTERRUPTED}
)
#: Verdicts that give the attempt back.
REFUNDED_VERDICTS = frozenset(
    {Verdict.SNOOZED, Verdict.INTERRUPTED, Verdict.RELEASED, Verdict.UNKNOWN}
)


class Reason(StrEnum):
    """Why a task became a dead letter."""

    ATTEMPTS = "attempts used up"
    GAVE_UP = "gave up on this error"
    REJECTED = "rejected by the task"
    RESULT = "the result cannot be stored"
    CRASHES = "crashed too often"
    UNKNOWN_TASK = "no worker knows this task"
    CORRUPT = "the row cannot be read"
