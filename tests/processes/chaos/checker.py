"""The verdict: a total-queue checker in the terms of Jepsen, and our own invariants.

Lost: acknowledged, and not finished in the end. Unexpected: there or run, and never
enqueued, or enqueued in a transaction that was rolled back. Recovered: not
acknowledged, and there all the same. Duplicated: ended more than once, as a task may
whose worker is gone; with ``atomic`` its effect may not.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from django_jobs.conf import conf
from django_jobs.states import Reason, State
from tests.processes.chaos import audit
from tests.processes.chaos.audit import ProducedLine, RunLine
from tests.processes.chaos.rows import Row, Rows
from tests.processes.chaos.tasks import ATOMIC, CHILD, doomed, outbox

#: Seconds by which two clocks of one machine may differ in their last digit.
GRAIN = 0.02
#: Ways of a producer: the transaction is rolled back; it holds an order as well.
UNDONE, ORDERED = "undone", "ordered"
#: Ends that no fault excuses.
WRONG_REASONS = (Reason.CORRUPT, Reason.RESULT, Reason.UNKNOWN_TASK, Reason.REJECTED)


@dataclass
class Ledger:
    """All that was written about a run, in files and in the database."""

    produced: list[ProducedLine]
    runs: list[RunLine]
    database: Rows
    tried: dict[str, ProducedLine] = field(init=False)
    acked: set[str] = field(init=False)
    places: dict[str, list[Row]] = field(init=False)

    def __post_init__(self) -> None:
        of_event: dict[str, dict[str, ProducedLine]] = defaultdict(dict)
        for line in self.produced:
            of_event[line.event][line.key] = line
        self.tried = of_event["try"]
        self.acked = set(of_event["ack"])
        self.places = defaultdict(list)
        for row in self.database.rows:
            self.places[row.key].append(row)
        # What a task enqueues is acknowledged by its own success.
        self.acked |= {key + CHILD for key in self._successes_of(outbox.name)}

    def _successes_of(self, name: str) -> set[str]:
        return {
            row.key
            for row in self.database.rows
            if row.name == name and row.state == State.SUCCESSFUL
        }

    def row(self, key: str) -> Row | None:
        return next(iter(self.places.get(key, ())), None)

    def is_known(self, key: str) -> bool:
        if key.endswith(CHILD):
            return key in self.acked
        # Whatever went wrong in a transaction that was to be rolled back: it was.
        return key in self.tried and self.tried[key].kind != UNDONE


def read_ledger(folder: Path, rows: Rows) -> Ledger:
    return Ledger(
        produced=list(audit.read_produced(folder / audit.PRODUCED)),
        runs=list(audit.read_runs(folder / audit.RUNS)),
        database=rows,
    )


def numbers(ledger: Ledger) -> dict[str, int]:
    """Count what there is and what may be."""
    seen = set(ledger.places)
    return {
        "attempted": len(ledger.tried),
        "acked": len(ledger.acked),
        "recovered": len((seen - ledger.acked) & set(ledger.tried)),
        "duplicated": sum(_extra_ends(ledger).values()),
        "finished": sum(row.is_finished for row in ledger.database.rows),
        "dead_letters": sum(row.table == "DeadLetter" for row in ledger.database.rows),
        "runs": sum(line.event == "start" for line in ledger.runs),
    }


def _extra_ends(ledger: Ledger) -> dict[str, int]:
    ends = Counter(line.key for line in ledger.runs if line.event == "end")
    return {
        key: count - 1
        for key, count in ends.items()
        if count > 1 and (row := ledger.row(key)) and row.name not in ATOMIC
    }


# -- what must not be ----------------------------------------------------------------


def lost(ledger: Ledger) -> Iterable[str]:
    """Acknowledged, and not finished."""
    for key in ledger.acked:
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
    there = {key for key in ordered if key in ledger.places}
    yield from there ^ ledger.database.orders


def never_run(ledger: Ledger) -> Iterable[str]:
    """Successful without having run to its end."""
    ended = {line.key for line in ledger.runs if line.event == "end"}
    for row in ledger.database.rows:
        if row.state == State.SUCCESSFUL and row.key not in ended:
            yield row.key


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
    counted = Counter(ledger.database.attempts)
    for row in ledger.database.rows:
        if row.table == "Result":
            counted[row.id, row.attempt] += 1
    for (task_id, number), count in counted.items():
        if count > 1:
            yield f"{task_id} attempt {number}"


def late_outcomes(ledger: Ledger) -> Iterable[str]:
    """The outcome of a run whose lease was over was accepted."""
    for row in ledger.database.rows:
        if row.returned_by not in (None, row.lease):
            yield f"{row.key} lease {row.lease} returned by {row.returned_by}"


def over_budget(ledger: Ledger) -> Iterable[str]:
    """More attempts or crashes than a task may have."""
    budget = conf().CRASH_BUDGET
    for row in ledger.database.rows:
        if row.crashes > budget or row.attempt > row.max_attempts + budget:
            yield f"{row.key} attempts {row.attempt} crashes {row.crashes}"


def wrong_ends(ledger: Ledger) -> Iterable[str]:
    """Expired, revoked, or a dead letter for a reason that there was not."""
    for row in ledger.database.rows:
        is_wrong_success = row.name == doomed.name and row.state == State.SUCCESSFUL
        is_wrong_state = row.state in (State.EXPIRED, State.REVOKED)
        if is_wrong_success or is_wrong_state or row.reason in WRONG_REASONS:
            yield f"{row.key} {row.state} {row.reason}"


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
    atomic_duplicated,
    atomic_torn,
    torn_transactions,
    never_run,
    run_twice_in_a_lease,
    completed_twice,
    late_outcomes,
    over_budget,
    wrong_ends,
    early,
]


def violations(ledger: Ledger) -> dict[str, list[str]]:
    """Return by check what it found."""
    return {check.__name__: sorted(check(ledger)) for check in CHECKS}
