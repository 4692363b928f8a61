"""Late: begun long after it was due, by more than what befell it explains."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from math import inf
from typing import NamedTuple

from tests.processes.chaos.audit import ProducedLine
from tests.processes.chaos.excuses import Excuses
from tests.processes.chaos.ledger import Ledger
from tests.processes.chaos.runs import Run
from tests.processes.chaos.site import LEASE, RESCUE
from tests.processes.chaos.tasks import LIMIT

#: Seconds that a task may wait for its turn on an idle machine.
TURN = 3.0
#: Seconds until a task is due again, at most: after a failure, and after a crash, of
#: which the first has the shorter pause.
RETRY, FIRST_CRASH, CRASH = 0.5, 2.0, 4.0
#: Seconds for which the dead hold a task.
HELD = LEASE + RESCUE


class Requeue(NamedTuple):
    """A producer put a dead letter back to work, or tried to."""

    asked: float
    over: float  #: when the producer went on
    is_answered: bool


def requeues(ledger: Ledger) -> dict[str, list[Requeue]]:
    found: dict[str, list[Requeue]] = defaultdict(list)
    by_producer: dict[str, list[ProducedLine]] = defaultdict(list)
    for line in ledger.produced:
        by_producer[line.by].append(line)
    for lines in by_producer.values():
        for line, following in pairwise([*lines, None]):
            if line is not None and line.event == "requeueing":
                over = inf if following is None else following.time
                is_answered = following is not None and following.event == "requeued"
                found[line.key].append(Requeue(line.time, over, is_answered))
    for asked in found.values():
        asked.sort()
    return found


class Waits:
    """How long each task waited for a start that was due, and how long it might."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.excuses = Excuses(ledger)
        self.runs = self.excuses.runs
        self.requeues = requeues(ledger)

    def late(self) -> Iterator[str]:
        for key, runs in self.runs.items():
            if key in self.ledger.events["ack"]:
                yield from self._first(key, runs[0])
            for run, again in pairwise(runs):
                yield from self._again(key, run, again)

    def _first(self, key: str, run: Run) -> Iterator[str]:
        # A producer that was kept waiting had not committed before.
        acked = self.ledger.events["ack"][key].time
        due = max(self.ledger.tried[key].due, acked)
        yield from self._judge(key, due, run, 0, TURN * self.ledger.second)

    def _again(self, key: str, run: Run, again: Run) -> Iterator[str]:
        allowed = TURN * self.ledger.second
        begun = again.first.time
        if asked := [
            each for each in self.requeues[key] if run.last.time <= each.asked <= begun
        ]:
            # Those without an answer may have put it back, too: the last one counts.
            told = [each for each in asked if each.is_answered] or asked[-1:]
            yield from self._judge(key, told[0].over, again, run.first.lease, allowed)
            return
        if begun - run.last.time > allowed:
            allowed += self._pause_after(run, again)
            host, end = run.first.host, run.last.time
            allowed += self.ledger.journal.unwell([host], end, begun)
            yield from self._judge(key, end, again, run.first.lease, allowed)

    def _pause_after(self, run: Run, again: Run) -> float:
        """Return how long it may take until a task is due again."""
        is_lost = self.excuses.was_lost(run, again)
        pause = HELD if is_lost else 0.0
        if run.last.event == "raise" and not is_lost:
            return RETRY
        if self.excuses.was_limited(run, again):
            pause += LIMIT + RETRY
        return pause + (FIRST_CRASH if run.first.attempt == 1 else CRASH)

    def _judge(
        self, key: str, due: float, run: Run, lease: int, allowed: float
    ) -> Iterator[str]:
        """Compare a wait with what is allowed, and with what befell it meanwhile.

        A claim that came to nothing may have held it until its lease was over.
        """
        begun, journal = run.first.time, self.ledger.journal
        if begun - due <= allowed:
            return
        fruitless = run.first.lease - lease - 1
        allowed += fruitless * (HELD + CRASH)
        allowed += journal.unwell([run.first.host], due, begun)
        waited = begun - due - journal.away(due, begun)
        if waited > allowed:
            yield f"{key} by {waited:.1f} s of {allowed:.1f} s"


def late(ledger: Ledger) -> Iterator[str]:
    """Begun, or begun again, long after it was due."""
    return Waits(ledger).late()


CHECKS: list[Callable[[Ledger], Iterable[str]]] = [late]
