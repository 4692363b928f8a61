"""The verdict: a total-queue checker in the terms of Jepsen, and our own invariants.

Lost: acknowledged, and not finished in the end. Unexpected: there or run, and never
enqueued, or enqueued in a transaction that was rolled back. Recovered: not
acknowledged, and there all the same. Duplicated: ended more than once, as a task may
whose worker is gone; with ``atomic`` its effect may not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from django_jobs.states import State
from tests.processes.chaos import accounts, ends, excuses, lateness, overlaps
from tests.processes.chaos.ledger import ORDERED, Ledger
from tests.processes.chaos.tasks import ATOMIC, fleeting

#: Seconds by which two clocks of one machine may differ in their last digit.
GRAIN = 0.02


def numbers(ledger: Ledger) -> dict[str, int]:
    """Count what there is and what may be."""
    seen = set(ledger.places) | ledger.missing
    states = Counter(row.state for row in ledger.database.rows)
    return {
        "attempted": len(ledger.tried),
        "acked": len(ledger.acked),
        "recovered": len((seen - ledger.acked) & set(ledger.tried)),
        "duplicated": sum(_extra_ends(ledger).values()),
        "duplicates_allowed": excuses.Excuses(ledger).in_flight(),
        "finished": sum(row.is_finished for row in ledger.database.rows)
        + len(ledger.missing),
        "dead_letters": sum(row.table == "DeadLetter" for row in ledger.database.rows),
        "revoked": states[State.REVOKED],
        "requeued": sum(line.event == "requeued" for line in ledger.produced),
        "pruned": len(ledger.database.pruned),
        "runs": sum(line.event == "start" for line in ledger.runs),
    }


def _extra_ends(ledger: Ledger) -> dict[str, int]:
    times = Counter(line.key for line in ledger.runs if line.event == "end")
    atomic = {row.key for row in ledger.database.rows if row.name in ATOMIC}
    return {
        key: count - 1
        for key, count in times.items()
        if count > 1 and key not in atomic
    }


# -- what must not be ----------------------------------------------------------------


def lost(ledger: Ledger) -> Iterable[str]:
    """Acknowledged, and neither finished nor pruned after it was."""
    for key in ledger.acked - ledger.missing:
        if not any(row.is_finished for row in ledger.places.get(key, ())):
            yield key


def unexpected(ledger: Ledger) -> Iterable[str]:
    """There or run, and never enqueued."""
    for key in {*ledger.places, *(line.key for line in ledger.runs)}:
        if not ledger.is_known(key):
            yield key


def doubled(ledger: Ledger) -> Iterable[str]:
    """In two rows: one key is one task, in exactly one of the three tables."""
    for key, rows in ledger.places.items():
        if len(rows) > 1:
            yield f"{key} {[(row.table, row.id) for row in rows]}"


def miscounted(ledger: Ledger) -> Iterable[str]:
    """Pruned twice, or there as well, or by less than they say who prune.

    So every task that was enqueued is in one of the three tables, or was pruned.
    """
    times = Counter(gone.key for gone in ledger.database.pruned)
    for key, count in times.items():
        if count + len(ledger.places.get(key, ())) > 1 and not _may_return(ledger, key):
            yield f"{key} was pruned {count} times, and is in {ledger.places.get(key)}"
    if ledger.said_pruned > (really := len(ledger.database.pruned)):
        yield f"{ledger.said_pruned} are said to be pruned, {really} were"


def _may_return(ledger: Ledger, key: str) -> bool:
    """Was it perhaps enqueued again after it was pruned, its answer being lost?"""
    tried = ledger.tried.get(key)
    told = ledger.events["ack"].get(key) or ledger.events["fail"].get(key)
    kept = fleeting.options.result_retention or 0.0
    return tried is None or told is None or told.time - tried.time > kept


def wrongly_pruned(ledger: Ledger) -> Iterable[str]:
    """Deleted before its time, or of a kind that is kept."""
    for gone in ledger.database.pruned:
        if not gone.was_due or ledger.name_of(gone.key) != fleeting.name:
            yield gone.key


def atomic_duplicated(ledger: Ledger) -> Iterable[str]:
    """The effect of an atomic task is there more than once."""
    for key, count in ledger.database.effects.items():
        yield from [key] * (count - 1)


def atomic_torn(ledger: Ledger) -> Iterable[str]:
    """The effect of an atomic task is there without its success, or the reverse."""
    for row in ledger.database.rows:
        if row.name in ATOMIC:
            has_effect = ledger.database.effects[row.key] > 0
            if has_effect != (row.state == State.SUCCESSFUL):
                yield f"{row.key} {row.state}"


def torn_transactions(ledger: Ledger) -> Iterable[str]:
    """A task is there without the order of its transaction, or the reverse."""
    ordered = {key for key, line in ledger.tried.items() if line.kind == ORDERED}
    there = ordered & (set(ledger.places) | ledger.missing)
    yield from there ^ ledger.database.orders


def never_run(ledger: Ledger) -> Iterable[str]:
    """Successful without having run to its end."""
    ended = ledger.ended
    for row in ledger.database.rows:
        if row.state == State.SUCCESSFUL and row.key not in ended:
            yield row.key
    yield from ledger.missing - ended


def run_twice_in_a_lease(ledger: Ledger) -> Iterable[str]:
    """Started twice by one claim; only the body of an atomic task may be repeated."""
    starts = Counter(
        (line.key, line.lease) for line in ledger.runs if line.event == "start"
    )
    for (key, lease), count in starts.items():
        row = ledger.row(key)
        if count > 1 and row is not None and row.name not in ATOMIC:
            yield f"{key} lease {lease}"


def completed_twice(ledger: Ledger) -> Iterable[str]:
    """Two outcomes were accepted for one attempt."""
    counted = Counter(
        (record.id, record.number, record.requeued)
        for record in ledger.database.records
        if record.is_spent
    )
    for row in ledger.database.rows:
        # What was revoked before its next attempt has the number of its last one.
        if row.state == State.SUCCESSFUL:
            counted[row.id, row.attempt, None] += 1
    for (task_id, number, _), count in counted.items():
        if count > 1:
            yield f"{task_id} attempt {number}"


def late_outcomes(ledger: Ledger) -> Iterable[str]:
    """The outcome of a run whose lease was over was accepted."""
    for row in ledger.database.rows:
        if row.returned is not None and row.returned.lease != row.lease:
            yield f"{row.key} lease {row.lease} returned by {row.returned.lease}"


def early(ledger: Ledger) -> Iterable[str]:
    """Started before the time that was asked for."""
    for line in ledger.runs:
        tried = ledger.tried.get(line.key)
        if tried and line.event == "start" and line.time < tried.due - GRAIN:
            yield f"{line.key} by {tried.due - line.time:.3f} s"


CHECKS: list[Callable[[Ledger], Iterable[str]]] = [
    lost,
    unexpected,
    doubled,
    miscounted,
    wrongly_pruned,
    atomic_duplicated,
    atomic_torn,
    torn_transactions,
    never_run,
    run_twice_in_a_lease,
    completed_twice,
    late_outcomes,
    early,
    *accounts.CHECKS,
    *ends.CHECKS,
    *excuses.CHECKS,
    *lateness.CHECKS,
    *overlaps.CHECKS,
]


def violations(ledger: Ledger) -> dict[str, list[str]]:
    """Return by check what it found."""
    return {check.__name__: sorted(check(ledger)) for check in CHECKS}
