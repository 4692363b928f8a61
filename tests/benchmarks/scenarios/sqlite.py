"""Four processes that enqueue, beside a worker, on one SQLite file."""

from __future__ import annotations

from tests.benchmarks.bench import Bench
from tests.benchmarks.scenarios.base import Result, Scenario, exits, result

WRITERS, EACH = 4, 100


def four_writers(bench: Bench) -> Result:
    worker = bench.start_worker()
    bench.warm_up()
    writers = [bench.new_producer() for _ in range(WRITERS)]
    for writer in writers:
        writer.ask("enqueue", "work", [[key] for key in bench.keys(EACH)])
    answers = [writer.answer() for writer in writers]
    keys = [key for answer in answers for key in answer["accepted"]]
    errors = [error for answer in answers for error in answer["errors"]]
    slowest = max(answer["seconds"] for answer in answers)
    counted = bench.count(keys)
    return result(
        counted,
        f"{len(errors)} refused ({errors[0][:60]})" if errors else "",
        f"enqueued in {slowest:.1f} s",
        exits(worker),
        failed=bool(errors) or bool(counted.twice),
        errors=len(errors),
        first_error=errors[0] if errors else "",
        enqueued_in=slowest,
        exits=worker.exits,
    )


SCENARIOS = [
    Scenario(
        name="sqlite",
        title=f"four processes enqueue {EACH} tasks each on SQLite, beside a worker",
        run=four_writers,
        on_sqlite=True,
    )
]
