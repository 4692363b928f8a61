"""What the worker asks of the operating system; each call degrades off Linux."""

from __future__ import annotations

import ctypes
import fcntl
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_PR_SET_PDEATHSIG = 1
#: States of a process that runs nothing any more: a zombie, or one that ends.
_ENDED = ("Z", "X")
#: Characters that are stored of the name of a boot.
_BOOT_LENGTH = 100
_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


def boot() -> str:
    """Name this boot of this host and its process namespace; empty when unknown.

    A process number means the same process only within one namespace and boot:
    containers of one host share the boot id and not the numbers. Copies of a virtual
    machine that runs share both, and differ in their name.
    """
    try:
        if os.readlink("/proc/self") != str(os.getpid()):
            return ""  # what is mounted there has the numbers of another namespace
        identity = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""
    return f"{identity} {namespace} {os.uname().nodename}"[:_BOOT_LENGTH]


def pid_start(pid: int) -> str:
    """Return when a process started, as the kernel counts; empty when it is gone.

    Also when that cannot be read: ``is_gone`` tells the one from the other.
    """
    state, begin = _state_and_start(pid)
    return "" if state in _ENDED else begin


def is_gone(pid: int, started: str) -> bool:
    """Tell whether the process that started then is known to run no more.

    One that cannot be looked at may live: others' processes may be hidden in ``/proc``,
    and we may be short of descriptors.
    """
    state, begin = _state_and_start(pid)
    if begin:
        return state in _ENDED or begin != started
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass
    return False


def _state_and_start(pid: int) -> tuple[str, str]:
    """Return fields 3 and 22 of proc(5); empty when they cannot be read."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return "", ""
    # The name, in parentheses, may itself hold spaces and parentheses.
    fields = stat.rpartition(b")")[2].decode().split()
    return fields[0], fields[19]


def memory_of(pid: int) -> int | None:
    """Return the resident memory of a process in bytes, None when unknown."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_bytes().split()[1]) * _PAGE
    except (OSError, IndexError, ValueError):
        return None


def signal_end_of_parent(number: int) -> None:
    """Have the kernel send this process a signal when its parent is gone."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(number))


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process as soon as its parent is gone."""
    signal_end_of_parent(signal.SIGKILL)
    if sys.platform == "linux" and os.getppid() != parent:
        os._exit(1)  # it was gone before the request was made


def lead_own_group() -> None:
    """Become the leader of a process group, so that a kill takes the descendants."""
    with suppress(OSError):
        os.setpgid(0, 0)


def out_of_reach(descriptor: int) -> int:
    """Give a descriptor a high number; return that, or the old one if there is none.

    Who closes what he takes for nobody's begins with the low numbers, and whatever is
    opened next gets the lowest that is free: it would be taken for ours.
    """
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Not higher: the kernel keeps a table up to the highest.
    try:
        high = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, min(most, 1024) - 64)
    except (OSError, ValueError):
        return descriptor
    os.close(descriptor)
    return high


def dump_no_core() -> None:
    """Keep this process and what it starts from writing its memory to a disk."""
    with suppress(OSError, ValueError):
        _, most = resource.getrlimit(resource.RLIMIT_CORE)
        resource.setrlimit(resource.RLIMIT_CORE, (0, most))


def release_copies(on_fork: Callable[[], None]) -> None:
    """Make what a task forks a plain process again; ``on_fork`` is called in each.

    multiprocessing, for one, ends its processes by SIGTERM. The signals are blocked
    while it forks: one that came before the child's handlers are gone would be lost.
    """
    signals = (signal.SIGINT, signal.SIGTERM)
    before = threading.local()

    def block() -> None:
        before.mask = signal.pthread_sigmask(signal.SIG_BLOCK, signals)

    def unblock() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, before.mask)

    def release() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        on_fork()
        unblock()

    os.register_at_fork(before=block, after_in_parent=unblock, after_in_child=release)


def prefer_as_oom_victim() -> None:
    """Ask the kernel to take this process before the worker's parent."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")


def kill_group(leader: int) -> None:
    """Kill a process group at once; nothing when it is gone."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def kill_with_group(pid: int) -> None:
    """Kill a process, also one that does not lead its group yet, and its group.

    Only while it is known to live: its number may be another one's afterwards.
    """
    kill_group(pid)
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)


def describe_exit(code: int | None) -> str:
    """Say in words how a process ended."""
    if code is None:
        return "is gone"
    if code >= 0:
        return f"exited with status {code}"
    with suppress(ValueError):
        hint = " (possibly out of memory)" if -code == signal.SIGKILL else ""
        return f"was killed by {signal.Signals(-code).name}{hint}"
    return f"was killed by signal {-code}"
