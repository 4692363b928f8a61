"""A factory of workers that end with their test."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.processes.harness import WorkerProcess

StartWorker = Callable[..., WorkerProcess]


@pytest.fixture
def start_worker(worker_env: dict[str, str], tmp_path: Path) -> Iterator[StartWorker]:
    """Start a worker: ``start_worker("--processes", "1", lease=2)``.

    Keywords are settings of ``DJANGO_JOBS``. What still runs at the end is killed.
    """
    started: list[WorkerProcess] = []
    numbers = itertools.count(1)

    def start(*options: str, ready: bool = True, **env: str) -> WorkerProcess:
        log = tmp_path / f"worker-{next(numbers)}.log"
        worker = WorkerProcess({**worker_env, **env}, log, *options)
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
