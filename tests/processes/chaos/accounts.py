"""Every run without success has a record, and every record a run: a balance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from math import inf

from django_jobs.exceptions import TimeLimitExceeded
from django_jobs.states import LIVE_STATES, Reason, State, Verdict
from tests.processes.chaos.ledger import Ledger
from tests.processes.chaos.rows import DRIFT, Record, Row
from tests.processes.chaos.runs import Run, limits_reached, runs_by_key
from tests.processes.chaos.tasks import ATOMIC, LIMITED

#: States that an attempt may have led to without a record of it.
UNRECORDED = {State.SUCCESSFUL, State.REVOKED, *LIVE_STATES}
FAILURES = {Verdict.FAILED, Verdict.RETRY}
#: The error of a task whose limit of time was reached.
TOO_LONG = f"{TimeLimitExceeded.__module__}.{TimeLimitExceeded.__qualname__}"


def books(ledger: Ledger) -> Iterator[tuple[Row, list[Record], list[Run]]]:
    """Yield each task that is still there with its records and its runs."""
    runs = runs_by_key(ledger)
    for row in ledger.database.rows:
        yield row, ledger.records[row.id], runs.get(row.key, [])


def unrecorded_runs(ledger: Ledger) -> Iterator[str]:
    """Started more often under a number than attempts with it came to an end.

    So a task that runs again has a record of why, whatever became of its counters.
    """
    for row, records, runs in books(ledger):
        ended = Counter(record.number for record in records)
        if row.state in UNRECORDED:
            ended[row.attempt] += 1
        for number, count in Counter(run.first.attempt for run in runs).items():
            if count > ended[number]:
                yield f"{row.key} attempt {number}: {count} runs, {ended[number]} ends"


def miscounted_attempts(ledger: Ledger) -> Iterator[str]:
    """Counters of a task that is over do not tell what its records tell."""
    for row, records, _ in books(ledger):
        current = [record for record in records if record.requeued is None]
        spent = sum(record.is_spent for record in current)
        crashes = sum(
            record.verdict == Verdict.CRASHED
            or (record.is_crash and row.reason == Reason.CRASHES)
            for record in current
        )
        more = row.attempt - spent
        # What is revoked may have been revoked before an attempt, or during it.
        right = {State.SUCCESSFUL: {1}, State.REVOKED: {0, 1}}.get(row.state, {0})
        if row.is_finished and (row.crashes != crashes or more not in right):
            numbers = f"attempt {row.attempt} crashes {row.crashes}"
            yield f"{row.key} {numbers}: {spent} and {crashes} recorded"


def false_failures(ledger: Ledger) -> Iterator[str]:
    """A failure was accepted that no run of that attempt had come to by then."""
    for row, records, runs in books(ledger):
        failures = [
            record
            for record in records
            if record.verdict in FAILURES and not record.is_crash
        ]
        failed = [run for run in runs if _may_have_failed(row, run)]
        for record in sorted(failures, key=lambda each: each.finished):
            its_own = [
                run
                for run in failed
                if run.first.attempt == record.number
                and run.last.time <= record.finished + DRIFT
            ]
            if its_own:
                failed.remove(its_own[0])
            elif not _needs_no_run(ledger, row, record):
                yield f"{row.key} attempt {record.number} {record.error}"


def _may_have_failed(row: Row, run: Run) -> bool:
    """Did it raise, could its limit end it, or its commit fail after its end?"""
    is_limited = row.name in LIMITED and not run.is_over
    return run.last.event == "raise" or is_limited or row.name in ATOMIC


def _needs_no_run(ledger: Ledger, row: Row, record: Record) -> bool:
    """Can it have failed before its first line?

    Its transaction may not have begun; its process may have been kept from its first
    line until its limit was reached.
    """
    if record.error == TOO_LONG and (limit := LIMITED.get(row.name)):
        began = record.finished - limit - DRIFT
        return ledger.journal.is_any_felt(began, record.finished)
    return row.name in ATOMIC and record.error.startswith("django.db.")


def uncounted_deaths(ledger: Ledger) -> Iterator[str]:
    """Its process was killed while it ran, and no crash of that attempt is recorded."""
    died = {each.process: each.time for each in ledger.deaths}
    limits = limits_reached(runs_by_key(ledger), ledger)
    for row, records, runs in books(ledger):
        crashes = Counter(record.number for record in records if record.is_crash)
        for run in runs:
            death = died.get(run.process)
            if death is None or run.is_over:
                continue
            # At its limit it, or its neighbour, may have been killed before we did it.
            if limits.get(run.process, inf) > death:
                crashes[run.first.attempt] -= 1
        for number, count in crashes.items():
            if count < 0:
                yield f"{row.key} attempt {number}"


CHECKS: list[Callable[[Ledger], Iterable[str]]] = [
    unrecorded_runs,
    miscounted_attempts,
    false_failures,
    uncounted_deaths,
]
