"""The frozen values that travel between layers; no database, no definitions."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from django_jobs.states import Reason, Verdict


class NewTask(NamedTuple):
    """A task as the producer hands it to the store. JSON fields are ASCII text."""

    id: str  #: UUIDv7 in its canonical form of 36 characters
    name: str
    queue_name: str
    priority: int  #: -100..100, higher runs first
    args: str  #: JSON array
    kwargs: str  #: JSON object
    summary: str  #: the arguments in at most 200 characters, sensitive ones masked
    max_attempts: int
    run_after: datetime | None = None  #: earliest start, aware
    delay: float | None = None  #: earliest start, seconds after the insert
    expires: datetime | None = None  #: latest start, aware
    expires_in: float | None = None  #: latest start, seconds after the insert
    time_limit: float | None = None  #: seconds, when it differs from the definition
    metadata: str = "{}"  #: JSON object of the user's
    headers: str = "{}"  #: JSON object of the middleware's: language, time zone, ...


class ClaimedTask(NamedTuple):
    """A task that a worker may run, with the lease number that fences its outcome."""

    id: str
    lease: int  #: grows with every claim; an outcome must name it
    attempt: int  #: this run, from 1
    crashes: int
    max_attempts: int
    name: str
    queue_name: str
    priority: int
    args: str
    kwargs: str
    metadata: str
    headers: str
    time_limit: float | None
    is_expired: bool  #: ``expires`` is over by the database's clock: do not run


class ErrorRecord(NamedTuple):
    """An exception as text, sanitised for every database and cut to size."""

    exception_class: str  #: dotted path
    message: str
    traceback: str
    fingerprint: str  #: 16 hex digits: same class and same own frame, same fingerprint


class Outcome(NamedTuple):
    """What became of a claimed task. The store writes it if the lease still holds."""

    id: str
    lease: int
    verdict: Verdict
    started: float = 0.0  #: CLOCK_MONOTONIC of this host; 0 when it never started
    finished: float = 0.0  #: the same clock
    return_value: str | None = None  #: JSON, None when not stored
    delay: float = 0.0  #: seconds until the next run
    reason: Reason | None = None  #: of a dead letter
    error: ErrorRecord | None = None
    log: str | None = None  #: tail of the captured log
    metadata: str | None = None  #: None when the task did not change it
    retention: float | None = None  #: seconds to keep the result; None for ever
    recorded: bool = False  #: an atomic task completed itself: nothing to write


class Demand(NamedTuple):
    """What a worker wants to claim."""

    limit: int
    queues: tuple[str, ...] = ()  #: in the order to ask them; empty: all there are
    exclude: tuple[str, ...] = ()  #: not these, when all are asked
    #: True takes the queues in their order, each only when those before it are
    #: empty; False merges them by (priority, time due, id).
    is_strict: bool = False


class Cycle(NamedTuple):
    """The answer of one round trip: what was claimed, and whose outcome was stale."""

    claimed: list[ClaimedTask]
    stale: list[str]
    locked: tuple[str, ...] = ()  #: not written, since somebody else has their rows


class NewWorker(NamedTuple):
    """A worker as it introduces itself to the database."""

    id: str  #: a fresh UUID per start
    name: str  #: label
    host: str
    pid: int
    boot: str  #: names this boot and process namespace; with pid_start tells the dead
    pid_start: str
    version: str
    queues: str
    processes: int
    threads: int
    coroutines: int


class TaskRecord(NamedTuple):
    """Everything known of a task, from whichever table it is in. Times are aware."""

    id: str
    state: str
    name: str
    queue_name: str
    priority: int
    args: str
    kwargs: str
    metadata: str
    max_attempts: int
    attempt: int
    crashes: int
    enqueued_at: datetime | None  #: None while the insert waits for a commit
    run_after: datetime | None
    started_at: datetime | None
    last_attempted_at: datetime | None
    finished_at: datetime | None
    return_value: str | None
    revoke_requested: bool
    reason: str
    worker_ids: list[str]  #: one per attempt that counts
    errors: list[ErrorRecord]  #: of the unsuccessful attempts, oldest first
    progress: str | None = None  #: JSON object, of a running task that told


class TaskLine(NamedTuple):
    """A task in a list. Times are aware."""

    id: str
    state: str
    name: str
    queue_name: str
    priority: int
    attempt: int
    max_attempts: int
    #: None for what nobody can read, or that is infinite; so are others here.
    enqueued_at: datetime | None
    run_after: datetime | None
    finished_at: datetime | None
    summary: str  #: the arguments, sensitive ones masked
    reason: str  #: of a dead letter


class AttemptLine(NamedTuple):
    """An attempt that did not succeed."""

    number: int
    verdict: str
    worker_id: str | None
    worker_name: str
    started_at: datetime | None
    finished_at: datetime | None
    exception_class: str
    message: str
    traceback: str
    log: str | None
    #: When the dead letter that it led to was put back to work.
    requeued_at: datetime | None


class WorkerLine(NamedTuple):
    """A registered worker."""

    id: str
    name: str
    host: str
    pid: int
    queues: str
    state: str
    running: int
    started_at: datetime | None
    seen_at: datetime | None
    is_alive: bool  #: its lease holds


class Backlog(NamedTuple):
    """What waits for a worker or for a person."""

    oldest_ready: float | None  #: seconds that the oldest READY task is due; None: none
    dead_letters: int
