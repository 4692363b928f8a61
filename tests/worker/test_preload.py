"""The process that forks the children leaves with its worker, and without a word."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import environment_of_workers

#: The worker is gone, and the signal comes while the interpreter is ending already.
LEAVES = """
import os, signal, threading
from django_jobs.worker import preload
preload._WORKER = -1
{end}
"""
SIGNAL = "os.kill(os.getpid(), signal.SIGHUP)"
ENDS = {
    "while it waits": f"{SIGNAL}; raise SystemError('goes on')",
    "at its own end": f"threading._register_atexit(lambda: {SIGNAL})",
}


@pytest.mark.parametrize("end", ENDS)
def test_it_leaves_quietly_and_tidily(end: str, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", LEAVES.format(end=ENDS[end])],
        env={**environment_of_workers(), "DJANGO_JOBS_FORK_SERVER_FOLDER": str(folder)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not folder.exists()
