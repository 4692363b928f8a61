"""What must hold after a life cycle, whatever calls of the database have failed in it.

Every task has ended once, and as it had to; its runs are those that are on record; what
the log told of them is what the tables tell.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from django_jobs.models import Attempt, DeadLetter, Operation, Result, Task, Worker
from django_jobs.records import TaskRecord
from django_jobs.states import State, Verdict
from django_jobs.store import get_store
from tests.faults import Mode, Struck
from tests.worker import belongings, life
from tests.worker.inprocess import InProcessWorker
from tests.worker.parts import wait_for


class End(NamedTuple):
    """How a task ends."""

    #: None for one that is pruned.
    state: State | None
    #: The attempts that fail without any fault, by verdict.
    failures: Mapping[Verdict, int] = {}
    is_atomic: bool = False
    #: Its numbers, where they do not follow from the attempts on record.
    is_counted: bool = True


WELL = End(State.SUCCESSFUL)
WELL_AT_SECOND = End(State.SUCCESSFUL, {Verdict.RETRY: 1})
WELL_AND_ATOMIC = End(State.SUCCESSFUL, is_atomic=True)
#: The tasks of a whole life cycle, by key.
ENDS: dict[str, End] = {
    **dict.fromkeys(["single", "ordered", "async", "delayed", "told", "further"], WELL),
    "retried": WELL_AT_SECOND,
    "written": WELL_AND_ATOMIC,
    "written at second": WELL_AT_SECOND._replace(is_atomic=True),
    "rescued": End(State.SUCCESSFUL, {Verdict.CRASHED: 1}),
    "requeued": End(
        State.SUCCESSFUL, {Verdict.RETRY: 1, Verdict.FAILED: 1}, is_counted=False
    ),
    "given up": End(State.FAILED, {Verdict.CRASHED: 1}, is_counted=False),
    "revoked before": End(State.REVOKED),
    "revoked while it runs": End(State.REVOKED, {Verdict.INTERRUPTED: 1}),
    "expired": End(State.EXPIRED),
    "pruned": End(None),
}
#: Events of a life without a fault ...
USUAL = {
    *("task_finished", "rescued", "pruned", "worker_started", "worker_stopped"),
    *("notifications_heard", "stopping"),
}
#: ... those that say what happened to a call ...
TOLD = {
    *("connection_lost", "database_unreachable", "database_reachable"),
    *("database_failing", "database_back", "heartbeat_failed", "heartbeat_back"),
    *("database_contended", "database_uncontended"),
    *("listener_failed", "listener_back", "wake_up_failed", "notify_failed"),
    *("atomic_conflict", "transaction_left_open"),
}
#: ... and those that only an answer that is lost can be the reason of.
OF_LOST_ANSWERS = {"outcomes_reconciled", "claims_reconciled", "commit_answer_lost"}
#: Threads of which a worker has no more than one.
ONE_EACH = ("parent", "child", "heartbeat", "listener", "event-loop", "application")
#: What the threads of tasks are called.
OF_TASKS = ("slot", "asyncio")


def of_task(
    key: str, task_id: str, end: End, struck: Sequence[Struck], log: Sequence[Any]
) -> Iterator[str]:
    """Tell what does not hold for a task that was enqueued."""
    record = get_store().fetch(task_id)
    runs = [run.lease for run in life.runs if run.id == task_id]
    if (record and record.state) != end.state:
        yield f"{key} ended as {record and record.state}"
    elif record is not None:
        if len(runs) != len(set(runs)) and not end.is_atomic:
            yield f"{key} ran more than once under one lease: {runs}"
        faults = sum(each.thread.startswith(OF_TASKS) for each in struck)
        rows = Attempt.objects.filter(task_id=record.id)
        attempts = Counter(rows.values_list("verdict", flat=True))
        yield from _of_attempts(
            key, record, end, len(set(runs)), faults, attempts.copy()
        )
        yield from _of_log(key, record, log, attempts)


def _of_attempts(
    key: str,
    record: TaskRecord,
    end: End,
    runs: int,
    faults: int,
    attempts: Counter[str],
) -> Iterator[str]:
    more, less = attempts - Counter(end.failures), Counter(end.failures) - attempts
    if less or sum(more.values()) > faults or more[Verdict.CRASHED]:
        yield f"{key} has the attempts {dict(attempts)}"
    crashes = attempts.pop(Verdict.CRASHED, 0)
    recorded = sum(attempts.values()) + (record.state == State.SUCCESSFUL)
    # A transaction that cannot be begun fails the attempt before the body runs.
    if not 0 <= recorded - runs <= faults * end.is_atomic:
        yield f"{key} ran {runs} times, and {recorded} are on record"
    refunded = attempts[Verdict.INTERRUPTED]
    counted = (record.attempt, record.crashes)
    if end.is_counted and counted != (recorded + crashes - refunded, crashes):
        yield f"{key} counts {counted} attempts and crashes of {recorded} and {crashes}"
    if record.attempt > record.max_attempts:
        yield f"{key} had {record.attempt} attempts of {record.max_attempts}"


def _of_log(
    key: str, record: TaskRecord, log: Sequence[Any], attempts: Counter[str]
) -> Iterator[str]:
    """Compare what the log says of each run with what is on record."""
    told = Counter(
        event.verdict
        for event in log
        if event.event == "task_finished" and event.task_id == record.id
    )
    # A worker that died says nothing.
    del attempts[Verdict.CRASHED]
    if record.state == State.SUCCESSFUL:
        attempts[Verdict.SUCCESSFUL] += 1
    if record.state == State.REVOKED:
        attempts[Verdict.REVOKED] = attempts.pop(Verdict.INTERRUPTED, 0)
    if told != attempts:
        yield f"{key}: the log tells {dict(told)}, on record are {dict(attempts)}"


def of_life(
    ids: Mapping[str, str], struck: Sequence[Struck], log: Sequence[Any]
) -> Iterator[str]:
    """Tell what does not hold after a whole life cycle."""
    for key, end in ENDS.items():
        yield from of_task(key, ids[key], end, struck, log)
    pruned = [run for run in life.runs if run.id == ids["pruned"]]
    # Of what is not kept nobody knows that it was there, if it is enqueued again.
    again = sum(each.thread.startswith((*OF_TASKS, "application")) for each in struck)
    if not 1 <= len(pruned) <= 1 + again:
        yield f"what is pruned ran as {pruned}"
    kept = {ids[key] for key, end in ENDS.items() if end.state is not None}
    yield from of_tables(kept, struck, log)
    yield from of_events(struck, log)
    if (workers := Worker.objects.count()) != 1:
        yield f"{workers} workers"
    if (orders := Operation.objects.filter(kind="order").count()) != 1:
        yield f"{orders} orders"


def of_threads(worker: InProcessWorker) -> Iterator[str]:
    """Tell which threads of a worker have ended, and what has more than it needs."""
    if missing := worker.missing_threads():
        yield f"the threads {missing} have ended"
    names = belongings.threads()
    if several := [name for name in ONE_EACH if names[name] > 1]:
        yield f"there are several of the threads {several}"
    # Each thread has one. The others are closed, but a server may need a moment.
    most = names.total()
    wait_for(lambda: belongings.sessions() <= most)


def of_tables(
    kept: set[str], struck: Sequence[Struck], log: Sequence[Any]
) -> Iterator[str]:
    """Tell what there is but those tasks, and what does not hold for their effects.

    An atomic task leaves with its completion an effect and perhaps a further task.
    """
    found = Counter(
        str(pk)
        for model in (Task, Result, DeadLetter)
        for pk in model.objects.values_list("pk", flat=True)
    )
    children = {
        life.key_of(new): new.id
        for new in life.sent.values()
        if life.key_of(new).startswith("child") and new.id in found
    }
    wanted = Counter([*kept, *children.values()])
    if found != wanted:
        more, less = map(dict, (found - wanted, wanted - found))
        yield f"in the tables are {more} too many and {less} too few"
    for key, task_id in children.items():
        yield from of_task(key, task_id, WELL, struck, log)
    for run in life.runs:
        if run.key.startswith("child") and run.id not in found:
            yield f"{run} was never committed"
    effects = Operation.objects.filter(kind__startswith="written")
    counts = Counter(effects.values_list("kind", flat=True))
    written = {run.key for run in life.runs if run.key.startswith("written")}
    if counts != Counter(written):
        yield f"the effects {counts ^ Counter(written)} are too many or too few"
    due = {f"child of {key}" for key in written if "second" not in key}
    if due != set(children):
        yield f"the tasks {due ^ set(children)} are too many or too few"


def of_events(struck: Sequence[Struck], log: Sequence[Any]) -> Iterator[str]:
    """Tell what the log says without a reason."""
    allowed = set(USUAL)
    if struck:
        allowed |= TOLD
    if any(each.trouble.mode in (Mode.AFTER, Mode.CUT_AFTER) for each in struck):
        allowed |= OF_LOST_ANSWERS
    for event in log:
        if event.event not in allowed:
            yield f"the log says {event.getMessage()}"
