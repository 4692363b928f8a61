"""Texts that no database takes."""

from __future__ import annotations

from typing import Any

from tests.benchmarks.bench import Bench, Worker
from tests.benchmarks.scenarios.base import Result, Scenario, times

POISONS = ("NUL", "surrogate")
#: How long a task that failed may take to be done with, by way of a rescue if need be.
END_SECONDS = 60.0


def poisoned_errors(bench: Bench) -> Result:
    """Let tasks fail with such a text, and see whether the next ones run."""
    worker = bench.start_worker()
    bench.warm_up()
    found = {poison: poisoned(bench, worker, poison) for poison in POISONS}
    text = "; ".join(f"{poison}: {words(each)}" for poison, each in found.items())
    failed = any(
        each["ran"] < 3 or each["left"] or each["exits"] for each in found.values()
    )
    return Result(text, failed, found)


def poisoned(bench: Bench, worker: Worker, poison: str) -> dict[str, Any]:
    bench.wait_until(lambda: bench.unfinished() == 0 or None, END_SECONDS / 10)
    exits, left = worker.exits, bench.unfinished() or 0
    (key,) = bench.enqueue(1, poison, task="fail")
    bench.wait_until(lambda: bench.notes().starts([key]) or None, 30)
    ran, waited = bench.next_tasks()
    bench.wait_until(
        lambda: None if (bench.unfinished() or 0) > left else True, END_SECONDS
    )
    return {
        "ran": ran,
        "waited": waited,
        "left": max((bench.unfinished() or 0) - left, 0),
        "exits": worker.exits - exits,
    }


def words(found: dict[str, Any]) -> str:
    said = [f"{found['ran']} of 3 ran, {found['waited']:.1f} s"]
    if found["exits"]:
        said.append(f"worker exited {times(found['exits'])}")
    if found["left"]:
        said.append(f"the failed task is not done after {END_SECONDS:.0f} s")
    return ", ".join(said)


SCENARIOS = [
    Scenario(
        name="poison",
        title="an exception with NUL, and one with a lone surrogate in its text, "
        "then three tasks each",
        run=poisoned_errors,
    )
]
