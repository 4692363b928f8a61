"""The runs of a task, each under a lease of its own, put together from their lines."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from tests.processes.chaos.audit import RunLine
from tests.processes.chaos.hosts import Process
from tests.processes.chaos.ledger import Ledger
from tests.processes.chaos.tasks import LIMIT, LIMITED

#: Seconds in which an outcome is stored when nothing is wrong.
STORING = 3.0


@dataclass(slots=True)
class Run:
    """A task under one lease: its first line and its last one."""

    first: RunLine
    last: RunLine

    @property
    def process(self) -> Process:
        return self.first.host, self.first.pid, self.first.born

    @property
    def is_over(self) -> bool:
        return self.last.event != "start"

    @property
    def felt_until(self) -> float:
        """Until when a fault may have cost it its outcome."""
        end = self.last.time if self.is_over else self.first.time + LIMIT
        return end + STORING


def runs_by_key(ledger: Ledger) -> dict[str, list[Run]]:
    """Return the runs of each key in the order of their leases."""
    found: dict[str, dict[int, Run]] = defaultdict(dict)
    for line in sorted(ledger.runs, key=lambda each: each.time):
        run = found[line.key].setdefault(line.lease, Run(line, line))
        run.last = line
    return {key: [runs[lease] for lease in sorted(runs)] for key, runs in found.items()}


def limits_reached(runs: dict[str, list[Run]], ledger: Ledger) -> dict[Process, float]:
    """Return when a run of a process was the first to reach its limit of time."""
    found: dict[Process, float] = {}
    for key, of_key in runs.items():
        limit = LIMITED.get(ledger.name_of(key))
        for run in of_key:
            if limit is not None and not run.is_over:
                at = run.first.time + limit
                found[run.process] = min(at, found.get(run.process, at))
    return found
