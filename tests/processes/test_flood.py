"""500 MB to the terminal: the worker takes no more memory, and the next task runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from django_jobs.models import Attempt
from tests.processes import tasks, wrecking
from tests.processes.harness import census, descendants

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.faults,
    pytest.mark.matrix,
]

MEGABYTES = 500
#: What a process may take more than before. The largest text there is has 100 MB, and
#: Python encodes it as a whole.
MOST_IN_CHILD, MOST_IN_PARENT = 250.0, 10.0


class Talkative:
    """A worker whose terminal is a pipe; we read it and keep the end."""

    def __init__(self, env: dict[str, str], *options: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "django", "jobworker", *options],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        assert self.process.stdout
        self.pipe = self.process.stdout
        self.bytes = 0
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while part := os.read(self.pipe.fileno(), 1 << 20):
            self.bytes += len(part)

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        finally:
            for pid in [self.process.pid, *descendants(self.process.pid)]:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.process.wait(5)
            self._thread.join(5)
            self.pipe.close()

    def memory(self) -> float:
        """Return how many megabytes the parent has had at most."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) / 1024


@pytest.fixture(params=["text", "json"])
def talkative(
    worker_env: dict[str, str], request: pytest.FixtureRequest
) -> Iterator[Talkative]:
    worker = Talkative(worker_env, "--processes", "1", "--log-format", request.param)
    yield worker
    worker.stop()


def test_a_flood_takes_no_memory(
    talkative: Talkative, record_property: Callable[[str, object], None]
) -> None:
    tasks.add.enqueue(1, 1).get(timeout=20)
    for kind in wrecking.FLOODS:
        before, bytes_before = talkative.memory(), talkative.bytes
        begin = time.monotonic()
        child = wrecking.flood.enqueue(kind, MEGABYTES).get(timeout=100)
        took = time.monotonic() - begin
        parent = talkative.memory() - before
        assert tasks.add.enqueue(1, 1).get(timeout=20) == 2
        written = (talkative.bytes - bytes_before) / 2**20
        figure = f"{kind}: {took:.1f} s, {written:.0f} MB out, child +{child:.0f} MB"
        record_property("figure", f"{figure}, parent +{parent:.1f} MB")
        assert parent < MOST_IN_PARENT, kind
        assert child < MOST_IN_CHILD, kind
    assert not Attempt.objects.exists()
    assert census()["dead letters"] == 0
