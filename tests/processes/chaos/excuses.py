"""What excuses that a task ran again, or late: its failure, a death, a fault."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise

from tests.processes.chaos.audit import RunLine
from tests.processes.chaos.journal import Harm
from tests.processes.chaos.ledger import Ledger
from tests.processes.chaos.runs import Run, runs_by_key
from tests.processes.chaos.site import LEASE, RESCUE
from tests.processes.chaos.tasks import LIMITED

#: Seconds that a child may outlive its parent.
LINGER = 2.0
#: Seconds that a task may wait for its turn, and what a blow to those who have it
#: may add; more blows than the budget of crashes do not come into it.
LATE, BLOW, MOST_BLOWS = 10.0, LEASE + RESCUE + 8.0, 3


def unexcused_starts(ledger: Ledger) -> Iterator[str]:
    """Started again though the run before had not failed, died, or lost its lease.

    So is a success that was run again: where two runs ended, a fault must have kept
    the outcome of the first from the database.
    """
    for key, runs in runs_by_key(ledger).items():
        for run, following in pairwise(runs):
            if not is_excused(ledger, run, following.first):
                yield f"{key} lease {following.first.lease} at {following.first.time}"


def is_excused(ledger: Ledger, run: Run, again: RunLine) -> bool:
    """Was there a reason to start a task again?"""
    has_failed = run.last.event == "raise" and run.last.time <= again.time
    return (
        has_failed
        or _has_died(ledger, run, again.time)
        or _was_limited(ledger, run, again.time)
        or _was_hit(ledger, run, again.time)
    )


def _has_died(ledger: Ledger, run: Run, until: float) -> bool:
    first, last = run.first, run.last
    process = first.host, first.pid, first.born
    return any(
        (death.host, death.pid, death.born) == process
        and first.time <= death.time <= until
        and last.time <= death.time + LINGER
        for death in ledger.deaths
    )


def _was_limited(ledger: Ledger, run: Run, until: float) -> bool:
    """Was it killed for its time limit? Then it wrote nothing afterwards."""
    row = ledger.row(run.first.key)
    limit = LIMITED.get(row.name) if row is not None else None
    return not run.is_over and limit is not None and until >= run.first.time + limit


def _was_hit(ledger: Ledger, run: Run, until: float) -> bool:
    over = min(until, run.felt_until)
    host, began = run.first.host, run.first.time
    return any(ledger.journal.touching(host, began, over, Harm.HOSTS))


def started_when_done(ledger: Ledger) -> Iterator[str]:
    """Started by a claim that is newer than its end."""
    for row in ledger.database.rows:
        for start in ledger.starts.get(row.key, ()):
            if row.is_finished and start.lease > row.lease:
                yield f"{row.key} lease {start.lease} after {row.lease}"


def late(ledger: Ledger) -> Iterator[str]:
    """First started long after it was due, by more than faults explain."""
    for key, acked in ledger.events["ack"].items():
        for start in ledger.starts.get(key, ())[:1]:
            # A producer that was kept waiting had not committed before.
            due = max(ledger.tried[key].due, acked.time)
            waited = start.time - due - ledger.journal.away(due, start.time)
            if waited > LATE * ledger.second + _blows(ledger, due, start.time) * BLOW:
                yield f"{key} by {waited:.1f} s"


def _blows(ledger: Ledger, due: float, start: float) -> int:
    felt = sum(
        strike.harm is not Harm.NOBODY
        and strike.hits > 0
        and strike.began <= start
        and strike.ended + strike.aftermath >= due
        for strike in ledger.journal.strikes
    )
    return min(felt, MOST_BLOWS)


CHECKS: list[Callable[[Ledger], Iterable[str]]] = [
    unexcused_starts,
    started_when_done,
    late,
]
