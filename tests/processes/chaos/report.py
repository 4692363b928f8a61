"""The verdict of a run: what was counted, what was found, one value for JSON."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Iterable
from math import isfinite
from typing import Any

from django_jobs.store import get_store
from tests.processes.chaos import checker, leftovers, recovery
from tests.processes.chaos.checker import Ledger
from tests.processes.chaos.rows import read_rows
from tests.processes.chaos.site import LEASE, SLOTS, Site
from tests.processes.chaos.watcher import Watcher

#: Seconds within which a task of a dead worker is taken back after the lease, and
#: then runs again when it is its turn.
RESCUE, TURN = 5.0, 2.0
#: Keys that are named of those that a check has found.
MOST_NAMED = 10


class Report:
    """Gathers what a run finds; it is valid when no check has found anything."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.violations: dict[str, list[str]] = defaultdict(list)
        self.values: dict[str, Any] = {}

    def note(self, check: str, found: Iterable[str]) -> None:
        """Take what a check has found wrong, in words."""
        self.violations[check] += [words for words in found if words]

    def judge(self, watcher: Watcher) -> None:
        """Count every task, and compare all times with what is promised."""
        ledger = checker.read_ledger(self.site.nursery.folder, read_rows())
        self.values |= checker.numbers(ledger)
        for check, found in checker.violations(ledger).items():
            self.note(check, found)
        self.note("findings", self.site.findings)
        self._judge_times(ledger, watcher)
        self._judge_duplicates(len(self.site.journal.strikes))

    def _judge_times(self, ledger: Ledger, watcher: Watcher) -> None:
        site = self.site
        # A second on an idle machine takes longer on a busy one.
        second = max(1.0, watcher.load / (os.cpu_count() or 1))
        epoch = get_store().now().timestamp() - time.monotonic()
        times = [*recovery.recoveries(ledger, site.deaths, site.journal, epoch)]
        limit = LEASE + RESCUE + TURN + second
        slow = [each for each in times if each.seconds > limit]
        self.note("slow_recovery", [" ".join(map(str, each)) for each in slow])
        if watcher.longest > RESCUE + second:
            self.note("held_by_the_dead", [f"{watcher.longest:.1f} s"])
        hurt = recovery.hurt_neighbours(ledger, site.killings, site.journal)
        self.note("hurt_neighbours", hurt)
        # What never ran again is found by other checks, and no number.
        known = [each.seconds for each in times if isfinite(each.seconds)]
        slowest = max(known, default=0.0)
        self.values |= {
            "interrupted_runs": len(times),
            "max_recovery_s": round(slowest, 2),
            "recovery_limit_s": round(limit, 2),
            "max_held_by_the_dead_s": round(watcher.longest, 2),
            "load": round(watcher.load, 1),
        }

    def _judge_duplicates(self, strikes: int) -> None:
        allowed = strikes * len(self.site.hosts) * SLOTS
        self.values["duplicates_allowed"] = allowed
        if (count := self.values["duplicated"]) > allowed:
            self.note("too_many_duplicates", [f"{count} > {allowed}"])

    def write(self, left_out: dict[str, list[str]]) -> dict[str, Any]:
        """Return all of it; what Jepsen counts comes first."""
        site = self.site
        found = {check: keys for check, keys in self.violations.items() if keys}
        events, errors = leftovers.words_of_logs(site)
        seconds = {name: round(value, 2) for name, value in site.slowest.items()}
        return {
            "valid": not found,
            "acked": self.values["acked"],
            "lost": len(self.violations["lost"]),
            "unexpected": len(self.violations["unexpected"]),
            "duplicated": self.values["duplicated"],
            "atomic_duplicated": len(self.violations["atomic_duplicated"]),
            "recovered": self.values["recovered"],
            **self.values,
            **seconds,
            **site.counts,
            "strikes": site.journal.counts(),
            "left_out": left_out,
            "events": events,
            "errors": errors,
            "violations": {check: keys[:MOST_NAMED] for check, keys in found.items()},
        }
