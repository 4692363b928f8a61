"""How a task of each kind must end, and by which numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import inf

from django_jobs.conf import conf
from django_jobs.states import LIVE_STATES, RESULT_STATES, Reason, State
from tests.processes.chaos.ledger import Ledger
from tests.processes.chaos.rows import Row
from tests.processes.chaos.runs import runs_by_key
from tests.processes.chaos.tasks import FORGOTTEN, MISSING, deadly, doomed, flaky

#: States of the rows of a table.
STATES: dict[str, frozenset[State]] = {
    "Task": LIVE_STATES,
    "Result": RESULT_STATES,
    "DeadLetter": frozenset({State.FAILED}),
}
#: Why a dead letter may be one; all others succeed in the end.
REASONS: dict[str, Reason] = {
    deadly.name: Reason.CRASHES,
    doomed.name: Reason.ATTEMPTS,
    FORGOTTEN: Reason.UNKNOWN_TASK,
}


def wrong_places(ledger: Ledger) -> Iterable[str]:
    """In a table whose rows have no such state."""
    for row in ledger.database.rows:
        if row.state not in STATES[row.table]:
            yield f"{row.key} {row.state} in {row.table}"


def wrong_ends(ledger: Ledger) -> Iterable[str]:
    """Not the end that its kind comes to; crashes may use up their budget instead."""
    for row in ledger.database.rows:
        if row.is_finished and not _is_right_end(ledger, row):
            yield f"{row.key} {row.name} {row.state} {row.reason} {_numbers(row)}"


def _is_right_end(ledger: Ledger, row: Row) -> bool:
    if row.state == State.REVOKED:
        return row.key in ledger.events["revoking"]
    if row.state == State.FAILED:
        wanted = REASONS.get(row.name)
        return row.reason in (Reason.CRASHES, wanted)
    return row.state == State.SUCCESSFUL and row.name not in REASONS


def wrong_numbers(ledger: Ledger) -> Iterable[str]:
    """Attempts and crashes that cannot be those of such an end."""
    for row in ledger.database.rows:
        if not all(_number_rules(row)):
            yield f"{row.key} {row.state} {row.reason} {_numbers(row)}"


def _number_rules(row: Row) -> Iterable[bool]:
    budget = conf().CRASH_BUDGET
    failures = row.attempt - row.crashes
    yield 0 <= failures <= row.max_attempts
    # The last crash of what is to be revoked is counted, and does not make it dead.
    most = budget if row.state == State.REVOKED else budget - 1
    if row.reason == Reason.CRASHES:
        yield row.crashes == budget
    else:
        yield row.crashes <= most
    if row.name == deadly.name:
        yield failures == 0
    if row.reason == Reason.ATTEMPTS:
        yield failures == row.max_attempts
    if row.reason == Reason.UNKNOWN_TASK:
        # Claimed at most: by workers that died before they gave it back.
        yield failures == 0
    if row.state == State.SUCCESSFUL:
        # Its first attempt fails, unless that crashed.
        yield row.attempt >= (2 if row.name == flaky.name else 1)


def _numbers(row: Row) -> str:
    return f"attempt {row.attempt}/{row.max_attempts} crashes {row.crashes}"


def never_started(ledger: Ledger) -> Iterable[str]:
    """Failed by its own fault without a start, or unknown and started all the same."""
    for row in ledger.database.rows:
        has_started = row.key in ledger.starts
        if row.reason == Reason.ATTEMPTS and not has_started:
            yield row.key
        if row.reason == Reason.UNKNOWN_TASK and has_started:
            yield row.key


def wrong_answers(ledger: Ledger) -> Iterable[str]:
    """Successful without a return value, or with that of another task."""
    for row in ledger.database.rows:
        is_right = row.returned is not None and row.returned.key == row.key
        if row.state == State.SUCCESSFUL and not is_right:
            yield f"{row.key} returned {row.returned}"


def revoked_in_vain(ledger: Ledger) -> Iterable[str]:
    """Revoked before it ran, and run or not revoked all the same; or not found."""
    for key, line in ledger.events["revoked"].items():
        if line.kind == MISSING and key not in ledger.missing:
            yield f"{key} was not found"
        if line.kind == "revoked":
            row = ledger.row(key)
            if row is None or row.state != State.REVOKED:
                yield f"{key} {row and row.state}"
            if any(start.time > line.time for start in ledger.starts.get(key, ())):
                yield f"{key} started after that"


def run_when_it_was_to_stop(ledger: Ledger) -> Iterable[str]:
    """Put back to work after its worker was asked to end it.

    What was claimed by then may still begin, once, where nothing ran at that moment.
    """
    runs = runs_by_key(ledger)
    for key, line in ledger.events["revoked"].items():
        if line.kind == "requested":
            begun = [run for run in runs.get(key, []) if run.first.time <= line.time]
            after = len(runs.get(key, [])) - len(begun)
            was_running = any(run.last.time > line.time for run in begun)
            host = begun[-1].first.host if begun else ""
            is_stopped = ledger.journal.is_blind(host, line.time)
            if after > (0 if was_running and not is_stopped else 1):
                yield f"{key} {after} times"


def requeued_in_vain(ledger: Ledger) -> Iterable[str]:
    """Put back to work, and not run again before that could be done once more."""
    for key, asked in ledger.answered("requeueing", "requeued").items():
        asked.sort(key=lambda each: each[1].time)
        row, starts = ledger.row(key), ledger.starts.get(key, ())
        bounds = [answer.time for _, answer in asked[1:]] + [inf]
        for (ask, _), bound in zip(asked, bounds, strict=True):
            has_run = any(ask.time < start.time < bound for start in starts)
            if not has_run and row is not None and row.reason != Reason.CRASHES:
                yield key


CHECKS: list[Callable[[Ledger], Iterable[str]]] = [
    wrong_places,
    wrong_ends,
    wrong_numbers,
    never_started,
    wrong_answers,
    revoked_in_vain,
    run_when_it_was_to_stop,
    requeued_in_vain,
]
