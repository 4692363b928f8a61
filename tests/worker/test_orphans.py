"""Whose orphans are found and killed, and whose are left alone."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from django_jobs.worker import orphans
from django_jobs.worker.orphans import Orphans, children_of
from tests.worker.parts import NOBODY, PATIENCE, wait_for

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="asks Linux")

#: A child of a worker that starts a program in a session of its own, and ends.
LEAVE = """
import os, subprocess, sys
from django_jobs.worker.orphans import wear
wear({mark})
sleep = [sys.executable, "-c", "import time; time.sleep({seconds})"]
left = subprocess.Popen(sleep, start_new_session=True, stdout=subprocess.DEVNULL)
print(left.pid, flush=True)
os._exit(0)  # in no case are we to reap it
"""
Leave = Callable[..., int]


@pytest.fixture
def ours() -> Iterator[Orphans]:
    before = orphans.adopt()
    yield Orphans()
    orphans.adopt(is_wanted=before)


@pytest.fixture
def leave(ours: Orphans) -> Iterator[Leave]:
    """Leave an orphan of the child with that number; return its id."""
    pids: list[int] = []

    def start(child: int, seconds: float = 60, of: Orphans = ours) -> int:
        code = LEAVE.format(mark=of.mark_of(child), seconds=seconds)
        told = subprocess.run(
            [sys.executable, "-c", code],
            stdout=subprocess.PIPE,
            check=True,
            cwd=Path(__file__).parents[2],
        )
        pids.append(int(told.stdout))
        wait_for(lambda: pids[-1] in children_of(os.getpid()))
        return pids[-1]

    yield start
    for pid in pids:
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, 9)
            os.waitpid(pid, 0)


def is_there(pid: int) -> bool:
    """Tell whether it is our child, be it a zombie."""
    return pid in children_of(os.getpid())


def test_orphans_of_a_dead_child_are_killed_and_reaped(
    ours: Orphans, leave: Leave
) -> None:
    doomed, spared = leave(7), leave(8)
    ours.died(7)
    assert ours.are_left
    ours.sweep_all(PATIENCE)
    assert not ours.are_left
    assert (is_there(doomed), is_there(spared)) == (False, True)


def test_orphans_of_a_child_that_lives_are_reaped_when_they_end(
    ours: Orphans, leave: Leave
) -> None:
    pid = leave(7, seconds=0)

    def is_reaped() -> bool:
        ours.sweep()
        return not is_there(pid)

    wait_for(is_reaped)
    assert not ours.are_left


def test_orphans_of_another_worker_are_none_of_ours(
    ours: Orphans, leave: Leave
) -> None:
    pid = leave(7, of=Orphans())
    ours.died(7)
    ours.sweep_all(0.2)
    assert is_there(pid)
    assert not ours.are_left


def test_our_own_processes_are_waited_for_by_those_who_started_them(
    ours: Orphans,
) -> None:
    process = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
    wait_for(lambda: Path(f"/proc/{process.pid}/stat").read_text().split()[2] == "Z")
    ours.died(7)
    ours.sweep()
    assert process.wait(PATIENCE) == 3


def test_adopting_is_undone(ours: Orphans) -> None:
    assert orphans.adopt(is_wanted=False) is True
    assert orphans.adopt() is False


def test_a_system_without_any_of_it_is_none_the_worse(
    monkeypatch: pytest.MonkeyPatch, ours: Orphans
) -> None:
    def refuse(*args: object) -> None:
        raise OSError("not here")

    monkeypatch.setattr(resource, "setrlimit", refuse)
    orphans.wear(7)
    monkeypatch.setattr(sys, "platform", "other")
    assert orphans.adopt() is False
    monkeypatch.setattr(orphans, "children_of", lambda pid: [NOBODY])
    ours.died(7)
    assert not ours.are_left
