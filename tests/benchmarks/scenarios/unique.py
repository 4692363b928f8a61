"""A unique enqueue inside ``atomic()``."""

from __future__ import annotations

from tests.benchmarks.bench import Bench
from tests.benchmarks.scenarios.base import Result, Scenario, times


def unique_in_atomic(bench: Bench) -> Result:
    """Enqueue one key twice in a transaction, another in one that is rolled back."""
    twice, taken_back = bench.keys(2)
    found = bench.producer.call("unique_in_a_transaction", twice)
    bench.producer.call("unique_rolled_back", taken_back)
    bench.start_worker()
    ordinary = bench.enqueue(1)
    bench.wait_for(ordinary, 60)
    bench.wait_until(lambda: bench.unfinished() == 0 or None, 10)
    notes = bench.notes()
    runs, ghosts = len(notes.starts([twice])), len(notes.starts([taken_back]))
    is_free = bench.producer.call("unique", taken_back)
    bench.wait_for([taken_back], 20)
    later = len(bench.notes().starts([taken_back])) - ghosts
    parts = [
        f"enqueued twice, ran {times(runs)}" if runs else "enqueued twice, never ran",
        f"the transaction broke ({found['error'].partition(':')[0]})"
        if found["error"]
        else "",
        f"rolled back, ran {times(ghosts)}" if ghosts else "rolled back, did not run",
        "then the key is free" if later else "then the key is still taken",
    ]
    failed = runs != 1 or bool(found["error"]) or bool(ghosts) or later != 1
    details = {"runs": runs, "ghosts": ghosts, "later": later, "is_free": is_free}
    return Result("; ".join(filter(None, parts)), failed, {**details, **found})


SCENARIOS = [
    Scenario(
        name="unique",
        title="a unique enqueue inside `atomic()`: twice and committed, and once and "
        "rolled back",
        run=unique_in_atomic,
    )
]
