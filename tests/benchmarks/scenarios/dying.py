"""Processes that are killed: idle ones, the whole group, and by the task itself."""

from __future__ import annotations

import signal
import time

from tests.benchmarks.bench import Bench, Patience
from tests.benchmarks.counting import count
from tests.benchmarks.processes import is_alive, send
from tests.benchmarks.scenarios.base import (
    Result,
    Scenario,
    exits,
    result,
    seconds,
    times,
)

#: How long a task that kills its process is watched.
WATCHED_SECONDS = 90.0


def idle_children(bench: Bench) -> Result:
    """Kill one after the other all processes that wait for a task."""
    worker = bench.start_worker()
    ran = bench.warm_up()
    time.sleep(1)  # a child that runs one task only is gone by then
    idle = [pid for pid in ran if is_alive(pid)]
    parents = {each.sessions[-1] for each in worker.commands}
    for pid in idle or sorted(parents):
        send(signal.SIGKILL, [pid])
        time.sleep(2)
    ran_next, waited = bench.next_tasks()
    if not idle:
        kind = "no idle children (a child per task): its workers were killed"
    elif set(idle) <= parents:
        kind = "no children: its workers were killed"
    else:
        kind = ""
    what = f"{ran_next} of 3 ran, {waited:.1f} s"
    if ran_next < 3:
        what = f"worker stuck: {ran_next} of 3 in {waited:.0f} s"
    text = "; ".join(part for part in (what, kind or exits(worker)) if part)
    details = {"ran": ran_next, "waited": waited, "exits": worker.exits, "kind": kind}
    return Result(text, ran_next < 3, {**details, "killed": len(idle or parents)})


def suicidal_task(bench: Bench) -> Result:
    """One task kills its process every time; ten ordinary ones stand behind it."""
    worker = bench.start_worker()
    bench.warm_up()
    start = time.monotonic()
    (poison,) = bench.enqueue(1, task="die")
    keys = bench.enqueue(10, 0.2)

    patience = Patience(bench)
    bench.wait_until(lambda: patience.is_over() or None, WATCHED_SECONDS)
    waited = time.monotonic() - start
    left = bench.unfinished()
    runs = len(bench.notes().starts([poison]))
    neighbours = count(bench.notes(), keys, left, waited)
    fate = f"ran {times(runs)}, then given up"
    if left:
        fate = f"ran {times(runs)} in {waited:.0f} s, and goes on"
        if runs == 1:
            fate = f"ran once, not done after {waited:.0f} s"
    return result(
        neighbours,
        f"the task {fate}",
        exits(worker),
        failed=bool(left),
        poison_runs=runs,
        left=left,
        exits=worker.exits,
    )


def group_killed(bench: Bench) -> Result:
    """Kill the whole worker in the midst of its tasks; it is started again."""
    worker = bench.start_worker()
    bench.warm_up()
    keys = bench.enqueue(20, 0.5)
    bench.wait_until(lambda: len(bench.notes().finished(keys)) >= 4 or None, 60)
    bench.wait_until(lambda: len(bench.notes().running(keys)) >= 2 or None, 10)
    moment = time.monotonic()
    worker.kill()
    running = bench.notes().running(keys)
    counted = bench.count(keys)
    gap = bench.notes().first_start_after(moment, keys)
    again = bench.notes().first_start_after(moment, running)
    return result(
        counted,
        f"work went on after {seconds(gap)}",
        f"what had been running ran again after {seconds(again)}" if again else "",
        exits(worker),
        gap=gap,
        again=again,
        running=len(running),
        exits=worker.exits,
    )


SCENARIOS = [
    Scenario(
        name="idle",
        title="`kill -9` of each idle child, then three tasks",
        run=idle_children,
    ),
    Scenario(
        name="suicidal",
        title="a task that kills its own process every time, and ten others",
        run=suicidal_task,
    ),
    Scenario(
        name="group",
        title="`kill -9` of the whole worker in mid-task, then a restart: 20 tasks",
        run=group_killed,
    ),
]
