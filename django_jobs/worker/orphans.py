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
import logging
import os
import random
import resource
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from django_jobs import events

logger = logging.getLogger("django_jobs")

_PR_SET_CHILD_SUBREAPER, _PR_GET_CHILD_SUBREAPER = 36, 37
_RLIMIT_LOCKS = 10
#: What is read of a process, or of a thread, that has ended.
_GONE = FileNotFoundError, ProcessLookupError
#: Children of one worker that can be told apart.
_MOST_CHILDREN = 1 << 32
#: Seconds that a sweep may take from the loop of the parent; the next one goes on.
SWEEP_TIME = 0.1
#: Seconds after which those are left alone that cannot be killed.
GIVE_UP_AFTER = 10.0


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
        #: When who is left was first killed, and those who are given up.
        self._killed: dict[int, float] = {}
        self._hopeless: set[int] = set()

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
        try:
            mine = children_of(os.getpid())
        except OSError:
            return  # short of descriptors: the next sweep may see them
        now = time.monotonic()
        left, killed, hopeless = set(), {}, set()
        for pid, child in self._left_by_children(mine):
            if _reap(pid):
                # It may have left somebody to us since we looked.
                left |= {child} & self._dead
            elif child in self._dead:
                since = self._killed.get(pid, now)
                if now - since > GIVE_UP_AFTER:
                    hopeless.add(pid)  # we may not, or it waits for a disk
                else:
                    left.add(child)
                    if not _kill_family(pid, now + SWEEP_TIME):
                        continue  # no time was left for it
                killed[pid] = since
        if hopeless - self._hopeless:
            pids = [str(pid) for pid in sorted(hopeless)]
            events.log(logger, logging.WARNING, "orphans_left", pids=pids)
        self._dead, self._killed, self._hopeless = left, killed, hopeless

    def _left_by_children(self, pids: list[int]) -> Iterator[tuple[int, int]]:
        """Yield whom a child has left, with its number; others are none of ours."""
        for pid in pids:
            child = _mark_of(pid) - self._first_mark
            if 0 <= child < _MOST_CHILDREN:
                yield pid, child

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
    """Return the direct children of a process; none where nobody can tell.

    Raises OSError when they cannot be seen now, as for want of descriptors.
    """
    found: list[int] = []
    with suppress(*_GONE):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with suppress(*_GONE):
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


def _kill_family(pid: int, until: float) -> bool:
    """Kill a process and all below it, as far as they are found in that time.

    Returns False when there was no time for any of them.

    Each is stopped before its children are listed: it forks no more. Children of those
    that are killed become ours, and so the next sweep finds who is missing.
    """
    family, rest = [], [pid]
    while rest and time.monotonic() < until:
        each = rest.pop()
        _send(each, signal.SIGSTOP)
        family.append(each)
        with suppress(OSError):
            rest += children_of(each)
    for each in family:
        _send(each, signal.SIGKILL)
    return bool(family)


def _send(pid: int, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)
