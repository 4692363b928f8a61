"""A worker that is asked to stop, as in every deploy."""

from __future__ import annotations

import time

from tests.benchmarks.bench import Bench
from tests.benchmarks.peers.base import GRACE
from tests.benchmarks.scenarios.base import Result, Scenario, result, seconds

INSIDE, BEYOND = 2.0, 14.0


def inside(bench: Bench) -> Result:
    return stop(bench, INSIDE)


def beyond(bench: Bench) -> Result:
    return stop(bench, BEYOND)


def stop(bench: Bench, length: float) -> Result:
    """Stop the worker one second into its tasks, and start a new one."""
    first = bench.start_worker()
    bench.warm_up()
    keys = bench.enqueue(2, length)
    waiting = bench.enqueue(4, 0.2)
    bench.wait_until(lambda: len(bench.notes().running(keys)) == 2 or None, 20)
    time.sleep(1)
    ended_in, was_killed = first.terminate()
    ended = len(bench.notes().finished(keys))
    moment = time.monotonic()
    bench.start_worker()
    counted = bench.count([*keys, *waiting])
    again = bench.notes().first_start_after(moment, keys)
    end = f"stopped in {ended_in:.1f} s"
    if was_killed:
        end = f"had to be killed after {GRACE} s"
    # What ended in time and runs again anyway is a fault; what was cut off is not.
    needless = counted.twice > 2 - ended or (length == INSIDE and ended < 2)
    return result(
        counted,
        end,
        f"what was cut off ran again after {seconds(again)}" if again else "",
        failed=needless or (length == INSIDE and was_killed),
        ended_in=ended_in,
        was_killed=was_killed,
        ended_in_time=ended,
        again=again,
    )


SCENARIOS = [
    Scenario(
        name="inside",
        title=f"`SIGTERM`, two tasks end inside the grace time of {GRACE} s, four wait",
        run=inside,
    ),
    Scenario(
        name="beyond",
        title=f"`SIGTERM`, two tasks of {BEYOND:.0f} s exceed it, four wait",
        run=beyond,
    ),
]
