"""Late: begun long after it was due, by more than what befell it explains."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from tests.processes.chaos.journal import Harm
from tests.processes.chaos.ledger import Ledger
from tests.processes.chaos.site import LEASE, RESCUE

#: Seconds that a task may wait for its turn, and what a blow to those who have it
#: may add; more blows than the budget of crashes do not come into it.
LATE, BLOW, MOST_BLOWS = 10.0, LEASE + RESCUE + 8.0, 3


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


CHECKS: list[Callable[[Ledger], Iterable[str]]] = [late]
