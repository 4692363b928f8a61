"""The verdict of a run: what was counted, what was found, one value for JSON."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from tests.processes.chaos import checker, leftovers, recovery
from tests.processes.chaos.ledger import Ledger, read_ledger
from tests.processes.chaos.rows import read_rows
from tests.processes.chaos.site import LEASE, RESCUE, Site
from tests.processes.chaos.watcher import Watcher

#: Seconds in which a task that was taken back runs again.
TURN = 2.0
#: Seconds in which a task comes to an end once the database is back, and what is added
#: to that where a second takes twice as long: processes have to be started, too.
BACK, SLOWER_BACK = 1.0, 2.0
#: How much longer than on an idle machine a second may be, at most.
SLOWEST_SECOND = 3.0
#: What a run must have done to say something: tasks per second, in all, and seconds
#: per strike that hit.
LEAST_RATE, LEAST, RARELY = 1.0, 20, 30.0
#: Strikes after which a fault must have hit something.
OFTEN = 3
#: Numbers that are told also when they are none.
COUNTS = (
    *("server_restarts", "failovers", "killed_backends", "proxy_faults"),
    *("killed_children", "killed_parents"),
)
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

    def judge(self, watcher: Watcher, seconds: float, floors: dict[str, int]) -> None:
        """Count every task, and compare all times with what is promised."""
        site = self.site
        ledger = read_ledger(
            site.nursery.folder, read_rows(), site.deaths, site.journal
        )
        site.journal.downs = {host.name: host.downs for host in site.hosts}
        ledger.said_pruned = site.counts["pruned"] + sum(
            leftovers.counted(site, "pruned", "tasks")
        )
        # A second on an idle machine takes longer on a busy one.
        busy = watcher.load / (os.cpu_count() or 1)
        ledger.second = min(max(1.0, busy), SLOWEST_SECOND)
        self.values |= checker.numbers(ledger)
        for check, found in checker.violations(ledger).items():
            self.note(check, found)
        self.note("findings", self.site.findings)
        self.note("watcher", watcher.problems())
        self._judge_times(ledger, watcher)
        strikes, hits = site.journal.counts(), site.journal.hits()
        self.note("too_little", too_little(self.values, strikes, hits, seconds))
        self.note("too_little", fewer({**self.values, **site.counts}, floors))

    def _judge_times(self, ledger: Ledger, watcher: Watcher) -> None:
        site, second = self.site, ledger.second
        times = [*recovery.recoveries(ledger, ledger.deaths, site.journal)]
        limit = LEASE + RESCUE + TURN + second
        late = [each for each in times if each.seconds > limit]
        self.note("slow_recovery", [" ".join(map(str, each)) for each in late])
        if watcher.longest > RESCUE + second:
            self.note("held_by_the_dead", [f"{watcher.longest:.1f} s"])
        hurt = recovery.hurt_neighbours(ledger, site.killings, site.journal)
        self.note("hurt_neighbours", hurt)
        back = [*recovery.returns(ledger, site.journal)]
        back_limit = BACK + SLOWER_BACK * (second - 1.0)
        slow = [f"{seconds:.1f} s" for seconds in back if seconds > back_limit]
        self.note("slow_return", slow)
        plain = limit - second + 1.0
        recovered = recovery.figures([each.seconds for each in times])
        self.values |= {
            "interrupted_runs": len(times),
            "max_recovery_s": recovered.get("max", 0.0),
            "recovery_s": recovered,
            "recovery_limit_s": round(limit, 2),
            "recovery_over_plain_limit": sum(each.seconds > plain for each in times),
            "back_to_work_s": recovery.figures(back),
            "back_to_work_limit_s": round(back_limit, 2),
            "killings_judged": len(
                recovery.judged(ledger, site.killings, site.journal)
            ),
            "max_held_by_the_dead_s": round(watcher.longest, 2),
            "suicides": len(ledger.suicides),
            "load": round(watcher.load, 1),
        }

    def write(self) -> dict[str, Any]:
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
            **dict.fromkeys(COUNTS, 0),
            **site.counts,
            "strikes": site.journal.counts(),
            "hits": site.journal.hits(),
            "left_out": site.left_out,
            "events": events,
            "errors": errors,
            "violations": {check: keys[:MOST_NAMED] for check, keys in found.items()},
        }


def too_little(
    values: dict[str, Any],
    strikes: dict[str, int],
    hits: dict[str, int],
    seconds: float,
) -> Iterable[str]:
    """Yield what a run did too little of to be worth anything."""
    least = max(LEAST, LEAST_RATE * seconds)
    if values["acked"] < least:
        yield f"{values['acked']} tasks were enqueued, of {least:.0f} at least"
    if values["finished"] < least:
        yield f"{values['finished']} tasks were finished, of {least:.0f} at least"
    if not hits:
        yield "nothing struck"
    elif sum(hits.values()) < max(1.0, seconds / RARELY):
        yield f"of {len(hits)} faults only {sum(hits.values())} strikes hit something"
    for fault, count in strikes.items():
        if count >= OFTEN and not hits[fault]:
            yield f"{fault} struck {count} times, and never hit anything"


def fewer(counts: dict[str, Any], floors: dict[str, int]) -> Iterable[str]:
    """Yield what there was less of than was asked for."""
    for name, floor in floors.items():
        if counts.get(name, 0) < floor:
            yield f"{name}: {counts.get(name, 0)} of {floor} at least"
