"""Whose orphans are found and killed, and whose are left alone."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from django_jobs.worker import orphans
from django_jobs.worker.orphans import Orphans, children_of
from tests.worker.parts import NOBODY, PATIENCE, Clock, wait_for

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


#: One whose own child is in a session of its own; tells the id of that.
NESTED = """
import os, sys, time
from django_jobs.worker.orphans import wear
wear({mark})
if os.fork():
    os._exit(0)
if not os.fork():
    os.setsid()
    print(os.getppid(), os.getpid(), flush=True)
time.sleep(60)
"""


def test_who_is_left_to_us_during_a_look_is_killed_by_the_next(
    ours: Orphans, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = NESTED.format(mark=ours.mark_of(7))
    started = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert started.stdout
    between, lowest = map(int, started.stdout.readline().split())
    started.stdout.close()
    started.wait(PATIENCE)
    wait_for(lambda: is_there(between))

    def look(pid: int) -> list[int]:
        monkeypatch.undo()
        found = children_of(pid)
        os.kill(between, signal.SIGKILL)
        wait_for(lambda: is_there(lowest))
        return found

    monkeypatch.setattr(orphans, "children_of", look)
    ours.died(7)
    ours.sweep_all(PATIENCE)
    assert not is_there(lowest)


def test_who_cannot_be_seen_for_want_of_descriptors_is_killed_later(
    ours: Orphans, leave: Leave
) -> None:
    doomed = leave(7)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        ours.died(7)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert is_there(doomed)
    ours.sweep_all(PATIENCE)
    assert not is_there(doomed)


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


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Signal nobody; return what would have been sent to whom."""
    made: list[tuple[int, int]] = []
    monkeypatch.setattr(
        orphans, "_send", lambda pid, number: made.append((number, pid))
    )
    return made


def test_a_family_of_many_generations_is_killed(
    sent: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    last = NOBODY + 2 * sys.getrecursionlimit()
    below = {pid: [pid + 1] for pid in range(NOBODY, last)}
    monkeypatch.setattr(orphans, "children_of", lambda pid: below.get(pid, []))
    orphans._kill_family(NOBODY, time.monotonic() + PATIENCE)
    for number in (signal.SIGSTOP, signal.SIGKILL):
        assert {pid for each, pid in sent if each == number} == {*below, last}


def test_nobody_forks_between_a_look_and_the_kill(
    sent: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def look(pid: int) -> list[int]:
        assert (signal.SIGSTOP, pid) in sent
        return [pid + 1] if pid < NOBODY + 3 else []

    monkeypatch.setattr(orphans, "children_of", look)
    orphans._kill_family(NOBODY, time.monotonic() + PATIENCE)
    assert len(sent) == 8


def test_a_family_without_end_does_not_hold_the_loop_up(
    sent: list[tuple[int, int]], ours: Orphans, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Each has two, and there are three of them.
    below = {os.getpid(): [NOBODY, NOBODY * 2, NOBODY * 3]}
    more = lambda pid: below.get(pid, [pid + 1, pid + 2])  # noqa: E731
    monkeypatch.setattr(orphans, "children_of", more)
    monkeypatch.setattr(orphans, "_mark_of", lambda pid: ours.mark_of(7))
    monkeypatch.setattr(orphans, "_reap", lambda pid: False)
    begin = time.monotonic()
    ours.died(7)
    assert time.monotonic() - begin < 10 * orphans.SWEEP_TIME
    # For whom there was no time, the time after which it is given up has not begun.
    assert set(ours._killed) == {NOBODY}
    stopped = {pid for number, pid in sent if number == signal.SIGSTOP}
    assert stopped == {pid for number, pid in sent if number == signal.SIGKILL} != set()


def test_who_cannot_be_killed_is_given_up_after_a_while_and_named_once(
    ours: Orphans,
    leave: Leave,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock, send = Clock(), orphans._send
    monkeypatch.setattr(orphans, "time", clock)
    stays = leave(7)
    monkeypatch.setattr(
        orphans, "_send", lambda pid, number: pid == stays or send(pid, number)
    )
    ours.died(7)
    clock.now += orphans.GIVE_UP_AFTER
    ours.sweep()
    assert (ours.are_left, caplog.messages) == (True, [])
    later = leave(7)
    clock.now += 1

    def are_gone() -> bool:
        ours.sweep()
        return not ours.are_left

    wait_for(are_gone)
    assert [is_there(pid) for pid in (stays, later)] == [True, False]
    assert caplog.messages == [f"event=orphans_left pids={stays}"]


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
