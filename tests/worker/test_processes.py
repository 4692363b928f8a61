"""What the operating system answers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from django_jobs.worker import processes
from tests.worker.parts import NOBODY, PATIENCE, wait_for

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="asks Linux")

SLEEP = "import sys, time; print('up', flush=True); time.sleep(60)"


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-c", SLEEP], stdout=subprocess.PIPE, start_new_session=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    yield process
    process.kill()
    process.wait(PATIENCE)
    process.stdout.close()


def test_the_boot_is_the_same_for_processes_side_by_side() -> None:
    code = "from django_jobs.worker import processes; print(processes.boot(), end='')"
    told = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert told.stdout == processes.boot() != ""


def test_the_boot_is_empty_where_it_is_not_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*args: object) -> str:
        raise OSError

    monkeypatch.setattr(os, "readlink", fail)
    assert processes.boot() == ""


def test_a_process_has_a_start_that_stays(sleeper: subprocess.Popen[bytes]) -> None:
    begin = processes.pid_start(sleeper.pid)
    assert int(begin) >= int(processes.pid_start(os.getpid()))
    assert processes.pid_start(sleeper.pid) == begin


def test_the_start_is_read_behind_a_name_with_spaces_and_parentheses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stat = b"7 (a) b (c) S " + b" ".join(b"%d" % field for field in range(4, 53))
    monkeypatch.setattr(Path, "read_bytes", lambda self: stat)
    assert processes.pid_start(7) == "22"


def test_who_is_gone_or_a_zombie_has_no_start(
    sleeper: subprocess.Popen[bytes],
) -> None:
    assert processes.pid_start(NOBODY) == ""
    sleeper.kill()
    wait_for(lambda: processes.pid_start(sleeper.pid) == "")


def test_the_memory_of_a_process_is_known_while_it_lives() -> None:
    memory = processes.memory_of(os.getpid())
    assert memory is not None
    assert 1_000_000 < memory < 10**11
    assert processes.memory_of(NOBODY) is None


def test_killing_a_group_takes_the_descendants() -> None:
    code = (
        "import subprocess, sys, time\n"
        f"child = subprocess.Popen([sys.executable, '-c', {SLEEP!r}])\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True
    )
    assert process.stdout is not None
    child = int(process.stdout.readline())
    processes.kill_with_group(process.pid)
    assert process.wait(PATIENCE) == -signal.SIGKILL
    wait_for(lambda: processes.pid_start(child) == "")
    process.stdout.close()


def test_a_descriptor_gets_a_number_that_nothing_else_gets() -> None:
    low, other = os.pipe()
    high = processes.out_of_reach(low)
    try:
        assert high > 256
        with pytest.raises(OSError):
            os.fstat(low)
        os.write(other, b"still the same")
        assert os.read(high, 100) == b"still the same"
        assert not os.get_inheritable(high)
    finally:
        os.close(high)
        os.close(other)


def test_a_descriptor_stays_where_no_number_is_high(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(processes.resource, "getrlimit", lambda what: (32, 32))
    with open(os.devnull) as file:
        assert processes.out_of_reach(file.fileno()) == file.fileno()


def test_killing_who_is_gone_does_no_harm() -> None:
    processes.kill_with_group(NOBODY)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (None, "is gone"),
        (0, "exited with status 0"),
        (3, "exited with status 3"),
        (-11, "was killed by SIGSEGV"),
        (-9, "was killed by SIGKILL (possibly out of memory)"),
        (-200, "was killed by signal 200"),
    ],
)
def test_an_end_is_said_in_words(code: int | None, words: str) -> None:
    assert processes.describe_exit(code) == words
