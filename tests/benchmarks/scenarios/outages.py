"""The database or broker goes away in the midst of a run."""

from __future__ import annotations

import time
from collections.abc import Callable

from tests.benchmarks.bench import Bench
from tests.benchmarks.scenarios.base import Result, Scenario, exits, result, seconds
from tests.benchmarks.servers import Server

TASKS, LENGTH = 300, 0.05
AWAY_SECONDS = 2.0


def restarted(bench: Bench) -> Result:
    return outage(bench, lambda server: _restart(server, server.clean))


def crashed(bench: Bench) -> Result:
    return outage(bench, lambda server: _restart(server, server.crash))


def disconnected(bench: Bench) -> Result:
    return outage(bench, _kill_connections)


def _restart(server: Server, number: int) -> None:
    server.stop(number)
    time.sleep(AWAY_SECONDS)
    server.start()


def _kill_connections(server: Server) -> None:
    for _ in range(20):
        server.kill_connections()
        time.sleep(0.25)


def outage(bench: Bench, fault: Callable[[Server], None]) -> Result:
    """Let the fault happen in the midst of many tasks; no one enqueues meanwhile."""
    assert bench.server is not None
    worker = bench.start_worker()
    bench.warm_up()
    keys = bench.enqueue(TASKS, LENGTH)
    bench.wait_until(lambda: len(bench.notes().finished(keys)) >= 20 or None, 60)
    fault(bench.server)
    moment = time.monotonic()
    counted = bench.count(keys)
    gap = bench.notes().first_start_after(moment, keys)
    ends = [note.time - moment for note in bench.notes().ends(keys)]
    ran_next, waited = bench.next_tasks()
    return result(
        counted,
        f"work went on after {seconds(gap)}" if gap is not None else "",
        f"the last done after {seconds(max(ends))}" if counted.is_whole else "",
        "" if ran_next == 3 else f"then {ran_next} of 3 ran in {waited:.0f} s",
        exits(worker),
        failed=ran_next < 3,
        gap=gap,
        ran_next=ran_next,
        exits=worker.exits,
    )


SCENARIOS = [
    Scenario(
        name="restart",
        title="the server is stopped in order, is away for 2 s and comes back: "
        f"{TASKS} tasks",
        run=restarted,
    ),
    Scenario(
        name="crash",
        title="the server crashes (`-m immediate`, `kill -9`) and comes back after "
        f"2 s: {TASKS} tasks",
        run=crashed,
    ),
    Scenario(
        name="connections",
        title=f"all connections are killed, 20 times in 5 s: {TASKS} tasks",
        run=disconnected,
    ),
]
