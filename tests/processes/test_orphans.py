"""What tasks have started and left behind: it ends with its child, and only then."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from django_jobs.worker.orphans import children_of
from tests.processes import tasks, wrecking
from tests.processes.conftest import StartWorker
from tests.processes.harness import census, is_alive, lines, wait_for

pytestmark = pytest.mark.django_db(transaction=True)


class Offspring:
    """The processes that one task has started; what is left of them ends with us."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def pids(self) -> list[int]:
        told = wait_for(lambda: "all" in lines(self.path) and lines(self.path))
        return [int(line) for line in told if line != "all"]

    def alive(self) -> list[str]:
        """Return which kinds are still there."""
        kinds = zip(wrecking.OFFSPRING, self.pids, strict=True)
        return [kind for kind, pid in kinds if is_alive(pid)]

    def kill(self) -> None:
        for pid in self.pids if self.path.exists() else ():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture
def doomed(tmp_path: Path) -> Iterator[Offspring]:
    made = Offspring(tmp_path / "doomed")
    yield made
    made.kill()


@pytest.fixture
def spared(tmp_path: Path) -> Iterator[Offspring]:
    made = Offspring(tmp_path / "spared")
    yield made
    made.kill()


KINDS = list(wrecking.OFFSPRING)
#: What a task has sent away on purpose.
AWAY = [kind for kind in KINDS if kind != "in the group"]


@pytest.mark.parametrize("end", ["crash", "limit"])
def test_what_a_dead_child_has_started_is_gone_within_two_seconds(
    start_worker: StartWorker, spared: Offspring, doomed: Offspring, end: str
) -> None:
    worker = start_worker("--processes", "2")
    # The same of a child that lives on, with the ids of its processes in between.
    wrecking.leave_offspring.enqueue(str(spared.path), "stay")
    assert spared.alive() == KINDS
    if end == "crash":
        wrecking.leave_offspring.enqueue(str(doomed.path), "crash")
    else:
        limited = wrecking.leave_offspring.using(time_limit=4)
        limited.enqueue(str(doomed.path), "stay")
        assert doomed.alive() == KINDS
        wait_for(lambda: "killed_for" in worker.output())
    begin = time.monotonic()
    wait_for(lambda: not doomed.alive())
    assert time.monotonic() - begin < 2
    assert spared.alive() == KINDS
    assert tasks.add.enqueue(1, 1).get(timeout=20) == 2
    wait_for(lambda: census()["tasks"] == 1)
    # Nobody else waits for them: none may stay as a zombie.
    spared.kill()
    wait_for(lambda: not set(children_of(worker.pid)) & set(spared.pids))


def test_what_was_sent_away_outlives_a_child_that_leaves_as_it_is_told(
    start_worker: StartWorker, spared: Offspring
) -> None:
    worker = start_worker("--processes", "1", "--recycle-after", "1")
    result = wrecking.leave_offspring.enqueue(str(spared.path), "return")
    assert result.get(timeout=20) == "left"
    assert tasks.add.enqueue(1, 1).get(timeout=20) == 2
    wait_for(lambda: spared.alive() == AWAY)
    assert worker.stop() == 0
    assert spared.alive() == AWAY
