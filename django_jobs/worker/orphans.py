"""Processes that tasks have started and that outlive the child: found, killed, reaped.

A kill of the child's group takes most of them. Those that left the group (a daemon, a
session of its own) become children of this process when the one that started them is
gone: we ask the kernel for that. Which child they come from they carry with them, in a
limit that the kernel has not enforced since 2003, on locks of files. It is inherited
by whatever they start, also by programs with an environment and descriptors of their
own. Only what comes from a child that is dead is killed.
"""

from __future__ import annotations

import ctypes
import os
import random
import resource
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_PR_SET_CHILD_SUBREAPER, _PR_GET_CHILD_SUBREAPER = 36, 37
_RLIMIT_LOCKS = 10
#: Children of one worker that can be told apart.
_MOST_CHILDREN = 1 << 32
#: Who forks as fast as he is found is stopped before he is killed.
_ROUNDS = 20


def wear(mark: int) -> None:
    """Mark this process, and with it all that it starts from now on."""
    with suppress(OSError, ValueError):  # not on this system
        _, most = resource.getrlimit(_RLIMIT_LOCKS)
        resource.setrlimit(_RLIMIT_LOCKS, (mark, most))


class Orphans:
    """What children of this worker have left behind."""

    def __init__(self) -> None:
        # Other workers, and one that a task starts, have marks of their own.
        self._first_mark = random.getrandbits(28) * _MOST_CHILDREN
        #: Numbers of dead children, as long as there is something left of them.
        self._dead: set[int] = set()

    def mark_of(self, child: int) -> int:
        return self._first_mark + child % _MOST_CHILDREN

    @property
    def are_left(self) -> bool:
        return bool(self._dead)

    def died(self, child: int) -> None:
        """Take note that all that a child has left behind is to be killed."""
        self._dead.add(child % _MOST_CHILDREN)
        self.sweep()

    def sweep(self) -> None:
        """Kill what dead children have left, and reap those whom nobody waits for."""
        left = set()
        for pid in children_of(os.getpid()):
            child = _mark_of(pid) - self._first_mark
            if not 0 <= child < _MOST_CHILDREN or _reap(pid):
                continue  # the fork server, and what else is ours
            if child in self._dead:
                left.add(child)
                _kill_family(pid)
        self._dead = left

    def sweep_all(self, timeout: float) -> None:
        """Sweep until nothing is left of dead children, or it is too late."""
        until = time.monotonic() + timeout
        while self._dead and time.monotonic() < until:
            self.sweep()
            time.sleep(0.005)


def adopt(*, is_wanted: bool = True) -> bool:
    """Have the kernel make orphans below us our children; return how it was."""
    if sys.platform != "linux":
        return False
    before = ctypes.c_int()
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(before))
    prctl(_PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(is_wanted))
    return bool(before.value)


def children_of(pid: int) -> list[int]:
    """Return the direct children of a process; none where that cannot be asked."""
    found: list[int] = []
    with suppress(OSError):  # it is gone
        for thread in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (thread / "children").read_bytes().split())
    return found


def _mark_of(pid: int) -> int:
    """Return the mark of a process, of a zombie too; -1 when it has none."""
    try:
        return resource.prlimit(pid, _RLIMIT_LOCKS)[0]
    except (OSError, AttributeError):  # it is gone, or that is not on this system
        return -1


def _reap(pid: int) -> bool:
    """Free the number of a child that is dead; True when it was."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True


def _kill_family(pid: int) -> None:
    """Kill a process and all below it; they cannot fork while they are stopped."""
    known: set[int] = set()
    for _ in range(_ROUNDS):
        family = {pid, *_descendants(pid)}
        if family <= known:
            break
        for each in family - known:
            _send(each, signal.SIGSTOP)
        known |= family
    for each in known:
        _send(each, signal.SIGKILL)


def _descendants(pid: int) -> Iterator[int]:
    for child in children_of(pid):
        yield child
        yield from _descendants(child)


def _send(pid: int, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)
