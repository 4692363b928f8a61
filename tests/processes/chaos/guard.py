"""Ends all that a run has started, also when the run itself was killed.

``python -m tests.processes.chaos.guard FOLDER`` waits for the end of its input, which
comes with the end of the run, and then cleans up.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

#: In the environment of every process of a run: the folder of the run.
MARK = "CHAOS_RUN"
#: In the folder: a line per process started, its number and its start.
REGISTER = "processes"
#: In the folder, when it shall stay.
KEEP = "keep"


def start_of(pid: int) -> str:
    """Return when a process started, as the kernel counts; empty when it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] in "ZX" else fields[19]


def processes_of(folder: Path) -> Iterator[int]:
    """Yield the processes of a run that live.

    The mark goes from parent to child. PostgreSQL overwrites its environment, so
    what was started is also told by its number and its start.
    """
    mark = f"{MARK}={folder}".encode()
    lines = _lines(folder / REGISTER)
    for path in Path("/proc").iterdir():
        if not path.name.isdecimal() or int(path.name) == os.getpid():
            continue
        pid = int(path.name)
        with suppress(OSError):
            is_marked = mark in (path / "environ").read_bytes().split(b"\0")
            if (is_marked or f"{pid} {start_of(pid)}" in lines) and start_of(pid):
                yield pid


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def clean_up(folder: Path) -> None:
    """Kill what still runs, unmount, and remove the folder."""
    until = time.monotonic() + 20
    while (left := list(processes_of(folder))) and time.monotonic() < until:
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
    for line in reversed(_lines(Path("/proc/mounts"))):
        place = line.split()[1]
        if Path(place).is_relative_to(folder):
            if (folder / KEEP).exists():
                subprocess.run(["cp", "-a", place, f"{place}.kept"], check=False)
            subprocess.run(["umount", "--lazy", place], check=False)
    if not (folder / KEEP).exists():
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it ends when the run does
    sys.stdin.buffer.read()
    clean_up(Path(sys.argv[1]))


if __name__ == "__main__":
    main()
