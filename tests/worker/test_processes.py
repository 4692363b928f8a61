"""What the operating system answers."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from django_jobs.models import Worker
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


def test_the_boot_fits_and_tells_hosts_of_any_name_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def name(host: str) -> None:
        monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(nodename=host))

    boots = set()
    for host in ("one", "another", "x" * 64):
        name(host)
        boots.add(processes.boot())
    assert len(boots) == 3
    most = Worker._meta.get_field("boot").max_length
    assert max(map(len, boots)) <= most  # type: ignore[operator]


IN_NAMESPACE = """
import os
from pathlib import Path
from django_jobs.worker import processes
print(os.getpid(), Path("/proc/self").resolve().name, processes.boot(), sep="|")
"""


@pytest.mark.parametrize("mount", ["--mount-proc", "--mount"])
def test_a_namespace_of_processes_has_a_boot_of_its_own(mount: str) -> None:
    told = unshared(IN_NAMESPACE, "--pid", "--fork", mount)
    pid, pid_in_proc, boot = told.strip().split("|")
    # Where /proc has the numbers of others, none of it may be believed.
    assert (pid == pid_in_proc) is (mount == "--mount-proc") is bool(boot)
    assert boot != processes.boot()


HIDDEN = f"""
import os
from django_jobs.worker import processes
assert os.system("mount -t proc -o hidepid=2 proc /proc") == 0
other = os.getpid()
begin = processes.pid_start(other)
if (child := os.fork()) == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
    told = [processes.is_gone(pid, begin) for pid in (other, os.getpid(), {NOBODY})]
    print([processes.pid_start(other), *told], flush=True)
    os._exit(0)
os.waitpid(child, 0)
"""


def test_a_process_of_another_user_that_is_hidden_is_not_gone() -> None:
    told = unshared(HIDDEN, "--pid", "--fork", "--mount")
    assert told.strip() == str(["", False, True, True])


def unshared(code: str, *options: str) -> str:
    """Run Python in namespaces of its own; return what it prints."""
    unshare = ("unshare", *options)
    if not shutil.which("unshare") or subprocess.run([*unshare, "true"]).returncode:
        pytest.skip("namespaces may not be made here")
    told = subprocess.run(
        [*unshare, sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
        timeout=PATIENCE,
    )
    return told.stdout


def test_a_process_that_cannot_be_looked_at_is_not_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begin = processes.pid_start(os.getpid())

    def refuse(path: Path) -> bytes:
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert not processes.is_gone(os.getpid(), begin)
    assert processes.is_gone(NOBODY, begin)


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
    begin = processes.pid_start(sleeper.pid)
    assert (processes.pid_start(NOBODY), processes.is_gone(sleeper.pid, begin)) == (
        "",
        False,
    )
    sleeper.kill()
    wait_for(lambda: processes.pid_start(sleeper.pid) == "")
    assert processes.is_gone(sleeper.pid, begin)


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
