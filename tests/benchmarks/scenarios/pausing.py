"""A worker that is paused for longer than its lease, while another one works."""

from __future__ import annotations

import signal
import time

from tests.benchmarks.bench import Bench
from tests.benchmarks.peers.base import LEASE
from tests.benchmarks.scenarios.base import Result, Scenario, exits, result, seconds

PAUSE = LEASE + 10.0


def paused(bench: Bench) -> Result:
    first = bench.start_worker()
    bench.warm_up()
    keys = bench.enqueue(6, 2.0)
    bench.wait_until(lambda: len(bench.notes().running(keys)) == 2 or None, 20)
    running = bench.notes().running(keys)
    first.signal(signal.SIGSTOP)
    moment = time.monotonic()
    second = bench.start_worker()
    time.sleep(PAUSE)
    ended = len(bench.notes().finished(keys))
    again = bench.notes().first_start_after(moment, running)
    first.signal(signal.SIGCONT)
    counted = bench.count(keys)
    second.terminate()
    is_back, waited = bench.next_tasks()
    return result(
        counted,
        f"{ended} of 6 done during the pause",
        f"what was paused ran elsewhere after {seconds(again)}" if again else "",
        "" if is_back == 3 else f"after it {is_back} of 3 ran in {waited:.0f} s",
        exits(first),
        failed=is_back < 3,
        done_in_pause=ended,
        again=again,
        exits=first.exits,
        back=is_back,
    )


SCENARIOS = [
    Scenario(
        name="paused",
        title=f"`SIGSTOP` of a worker for {PAUSE:.0f} s (a lease that can be set is "
        f"{LEASE:.0f} s) beside another one: six tasks, then `SIGCONT` and three tasks "
        "for it alone",
        run=paused,
    )
]
