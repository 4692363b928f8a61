"""Ten schedules, the first of which cannot be read."""

from __future__ import annotations

import time

from tests.benchmarks.bench import Bench
from tests.benchmarks.scenarios.base import Result, Scenario

NAMES = tuple(f"tick{number}" for number in range(10))
GOOD = NAMES[1:]
PATIENCE = 75.0


def one_corrupt(bench: Bench) -> Result:
    """Count how many of the nine good ones fire at least once."""
    start = time.monotonic()
    if not bench.peer.schedules_in_code:
        bench.producer.call("make_schedules", NAMES)
    started = [bench.start_worker(), bench.start_scheduler()]
    workers = [each for each in started if each is not None]

    def have_fired() -> bool | None:
        return bench.notes().finished(GOOD) == set(GOOD) or None

    bench.wait_until(have_fired, PATIENCE)
    waited = time.monotonic() - start
    fired = len(bench.notes().finished(GOOD))
    ended = sum(each.exits for each in workers)
    parts = [f"{fired} of 9 others fired, {waited:.0f} s"]
    is_refused = bench.peer.schedules_in_code and not fired
    if is_refused:
        parts = ["refused where it is declared: nothing starts until it is mended"]
    elif ended:
        parts.append(f"{ended} exits")
    details = {"fired": fired, "waited": waited, "exits": ended}
    failed = fired < len(GOOD) and not is_refused
    return Result("; ".join(parts), failed, details)


SCENARIOS = [
    Scenario(
        name="schedules",
        title="one corrupt schedule among ten",
        run=one_corrupt,
        schedules=NAMES,
    )
]
