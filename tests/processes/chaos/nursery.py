"""Processes that end with the run, however it ends."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.processes.chaos import guard

ROOT = Path(__file__).resolve().parents[3]


class Nursery:
    """A folder for the run, and all processes that it starts."""

    def __init__(self, *, keep: bool = False) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="chaos-"))
        self.folder.chmod(0o755)  # servers run as users of their own
        if keep:
            (self.folder / guard.KEEP).touch()
        #: The temporary files of all processes: none is to be left.
        self.temporary = self.make_folder("tmp")
        self.temporary.chmod(0o1777)
        self.env = {
            **os.environ,
            guard.MARK: str(self.folder),
            "TMPDIR": str(self.temporary),
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "testproject")]),
            "PYTHONUNBUFFERED": "1",
        }
        self._started: list[subprocess.Popen[bytes]] = []
        # Not marked: it would find, and end, itself.
        self._guard = subprocess.Popen(
            [sys.executable, "-m", guard.__name__, str(self.folder)],
            env={**self.env, guard.MARK: ""},
            stdin=subprocess.PIPE,
            start_new_session=True,
        )

    def start(
        self,
        command: Sequence[str | Path],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        user: str | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a process in a session of its own; its output goes to a file."""
        with log.open("ab") as output:
            process = subprocess.Popen(
                command,
                env={**self.env, **(env or {})},
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **as_user(user),
            )
        with (self.folder / guard.REGISTER).open("a") as register:
            register.write(f"{process.pid} {guard.start_of(process.pid)}\n")
        self._started.append(process)
        return process

    def run(self, command: Sequence[str | Path], *, user: str | None = None) -> str:
        """Run a command to its end; return its output."""
        done = subprocess.run(
            command,
            env=self.env,
            cwd=self.folder,
            text=True,
            capture_output=True,
            timeout=120,
            check=False,
            **as_user(user),
        )
        if done.returncode:
            raise RuntimeError(f"{command[0]}: {done.stderr or done.stdout}")
        return done.stdout

    def make_folder(self, name: str, user: str | None = None) -> Path:
        """Make a folder, owned by the user of a server."""
        path = self.folder / name
        path.mkdir(mode=0o755, parents=True)
        self.give(path, user)
        return path

    @staticmethod
    def give(path: Path, user: str | None) -> None:
        if user is not None and os.geteuid() == 0:
            shutil.chown(path, user, user)

    def left(self) -> list[int]:
        """Return the processes of the run that still live."""
        return list(guard.processes_of(self.folder))

    def close(self) -> None:
        assert self._guard.stdin is not None
        self._guard.stdin.close()
        self._guard.wait()
        for process in self._started:
            process.wait()


def as_user(user: str | None) -> dict[str, Any]:
    """Return arguments of Popen: servers refuse to run as root."""
    if user is None or os.geteuid() != 0:
        return {}
    return {"user": user, "group": user, "extra_groups": []}
