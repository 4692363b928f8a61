"""Does it matter how many tasks are waiting?"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from tests.benchmarks.bench import Bench, Worker
from tests.benchmarks.processes import cpu_seconds
from tests.benchmarks.scenarios.base import Result, Scenario

SMALL, LARGE = 5_000, 100_000
#: What is measured: the first so many tasks, or those that ran in so many seconds.
SAMPLE, SAMPLE_SECONDS = 4_000, 15.0
CHUNK = 10_000
#: From here on the length of the queue is said to matter.
NOTEWORTHY = 1.5


@dataclass(frozen=True)
class Pace:
    """How fast tasks were started, and what they cost the worker and the server."""

    per_second: float
    #: Time of the processors per task, steadier than the rate on a busy machine.
    cpu_milliseconds: float


def full_backlog(bench: Bench) -> Result:
    """Compare the work on a short queue with that on a long one."""
    short, long = pace(bench, SMALL), pace(bench, LARGE)
    ratio = long.cpu_milliseconds / short.cpu_milliseconds
    text = (
        f"{ratio:.1f} times the CPU of a short queue: "
        f"{long.cpu_milliseconds:.2f} ms per task ({long.per_second:,.0f}/s) "
        f"to {short.cpu_milliseconds:.2f} ms ({short.per_second:,.0f}/s)"
    )
    details = {"short": asdict(short), "long": asdict(long), "ratio": ratio}
    return Result(text, ratio > NOTEWORTHY, details)


def pace(bench: Bench, waiting: int) -> Pace:
    """Work on the beginning of a queue that was filled before the worker started."""
    bench.audit.unlink(missing_ok=True)
    keys: list[str] = []
    while len(keys) < waiting:
        calls = [[key] for key in bench.keys(min(CHUNK, waiting))]
        keys += bench.producer.call("enqueue_many", "work", calls)["accepted"]
    assert bench.server is not None
    bench.server.settle()  # what the server does about the filling is not counted
    worker = bench.start_worker()
    bench.wait_until(lambda: bench.notes().starts() or None, 60)
    cpu, begin = _cpu(bench, worker), len(bench.notes().starts())
    bench.wait_until(
        lambda: len(bench.notes().starts()) - begin >= SAMPLE or None, SAMPLE_SECONDS
    )
    cpu, end = _cpu(bench, worker) - cpu, len(bench.notes().starts())
    worker.end()
    if end - begin < 2:
        raise TimeoutError("no tasks were started")
    times = [note.time for note in bench.notes().starts()][begin:end]
    rate = (len(times) - 1) / (times[-1] - times[0])
    return Pace(rate, 1000 * cpu / (end - begin))


def _cpu(bench: Bench, worker: Worker) -> float:
    assert bench.server is not None
    return cpu_seconds([*worker.pids(), *bench.server.pids()])


SCENARIOS = [
    Scenario(
        name="backlog",
        title=f"{LARGE:,} tasks that do nothing wait: what one costs, beside a queue "
        f"of {SMALL:,}",
        run=full_backlog,
    )
]
