"""A factory of workers that end with their test, and a keeper of measured times."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from django.conf import settings

from tests.processes.harness import WorkerProcess, slowness

StartWorker = Callable[..., WorkerProcess]
#: Keeps a time, and says whether it is below a limit.
Figure = Callable[[str, float, float], bool]


@pytest.fixture
def start_worker(worker_env: dict[str, str], tmp_path: Path) -> Iterator[StartWorker]:
    """Start a worker: ``start_worker("--processes", "1", lease=2)``.

    Keywords are settings of ``DJANGO_JOBS``. What still runs at the end is killed.
    """
    started: list[WorkerProcess] = []
    numbers = itertools.count(1)

    def start(
        *options: str, ready: bool = True, prefix: Sequence[str] = (), **env: str
    ) -> WorkerProcess:
        log = tmp_path / f"worker-{next(numbers)}.log"
        worker = WorkerProcess({**worker_env, **env}, log, *options, prefix=prefix)
        started.append(worker)
        if ready:
            worker.wait_until_ready()
        return worker

    yield start
    for worker in started:
        worker.kill_everything()


@pytest.fixture
def audit(tmp_path: Path) -> Path:
    """The file to which tasks write what they did."""
    return tmp_path / "audit.txt"


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Figure:
    """Keep a measured time; the end of the run shows them all."""

    before = slowness()

    def keep(fault: str, seconds: float, limit: float) -> bool:
        slow = max(before, slowness())
        line = f"{fault}, {settings.SERVER}, {seconds:.2f} s (limit {limit:g} s"
        line += f", machine taken {slow:.1f} times)" if slow > 1.5 else ")"
        request.node.user_properties.append(("figure", line))
        return seconds < limit * slow

    return keep
