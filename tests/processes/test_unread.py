"""A terminal that nobody reads and a task has filled: the worker goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress

import pytest

from django_jobs.models import DeadLetter
from tests.processes import tasks, wrecking
from tests.processes.harness import census, descendants, wait_for

pytestmark = pytest.mark.django_db(transaction=True)

Worker = subprocess.Popen[bytes]


@pytest.fixture(params=["text", "json"])
def unread(
    worker_env: dict[str, str], request: pytest.FixtureRequest
) -> Iterator[Worker]:
    worker = subprocess.Popen(
        [
            *(sys.executable, "-m", "django", "jobworker", "--processes", "2"),
            *("--log-format", request.param),
        ],
        env=worker_env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    yield worker
    for pid in [worker.pid, *descendants(worker.pid)]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    worker.wait(5)
    assert worker.stdout
    worker.stdout.close()


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_worker_needs_no_standard_stream(
    worker_env: dict[str, str], closed: str
) -> None:
    result = tasks.add.enqueue(1, 1)
    line = f'exec "$0" -m django jobworker --burst --processes 1 {closed}'
    command = ["sh", "-c", line, sys.executable]
    assert subprocess.run(command, env=worker_env, timeout=30).returncode == 0
    assert result.get(timeout=0) == 2


def test_a_terminal_that_nobody_reads_stops_no_worker(unread: Worker) -> None:
    tasks.add.enqueue(1, 1).get(timeout=20)
    flood = wrecking.flood.using(time_limit=1, max_attempts=1)
    flood.enqueue("a program", 1)
    # The limit is enforced, the next task runs, and others fail beside it.
    wait_for(DeadLetter.objects.exists)
    assert tasks.add.enqueue(1, 1).get(timeout=20) == 2
    assert "time limit" in DeadLetter.objects.get().message
    os.kill(unread.pid, signal.SIGTERM)
    assert unread.wait(20) == 0
    assert census() == {"tasks": 0, "results": 2, "dead letters": 1}
