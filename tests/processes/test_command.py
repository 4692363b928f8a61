"""The command line of ``jobworker``: its banner, its options, its errors."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import select
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from django.core.management import CommandError
from django.db import connection

from django_jobs import __version__
from django_jobs.management.commands import jobworker
from django_jobs.models import Task, Worker
from django_jobs.worker import pool
from django_jobs.worker.options import WorkerOptions
from tests.processes import tasks
from tests.processes.conftest import StartWorker
from tests.processes.harness import (
    PATIENCE,
    WorkerProcess,
    descendants,
    is_alive,
    lines,
    wait_for,
)

pytestmark = pytest.mark.django_db(transaction=True)


def test_the_banner_says_what_runs_where(start_worker: StartWorker) -> None:
    options = ("--name", "mail-1", "--processes", "2", "--threads", "3")
    worker = start_worker(*options, "--queues", "a,b")
    banner = worker.output()
    assert f"django_jobs {__version__}" in banner
    assert "mail-1" in banner
    assert connection.display_name in banner
    assert re.search(r"queues\s+a,b\n", banner)
    assert "2 processes" in banner
    assert "100 coroutines" in banner
    assert "3 threads" in banner
    assert str(worker.pid) in banner


def test_the_worker_introduces_itself_in_its_row(start_worker: StartWorker) -> None:
    worker = start_worker("--name", "mail-1", "--processes", "2")
    row = Worker.objects.get()
    assert (row.name, row.pid, row.processes) == ("mail-1", worker.pid, 2)
    assert row.version == __version__
    assert row.expires_at > row.seen_at >= row.started_at


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--queues", "a:x"), "a weight is a whole number"),
        (("--queues", "a:2,b"), "every queue a weight or none"),
        (("--queues", "a", "--exclude-queues", "b"), "not both"),
        (("--database", "nowhere"), "nowhere"),
        (("--backend", "nowhere"), "nowhere"),
        (("--processes", "0"), "must be 1 or more"),
        (("--processes", "many"), "many"),
        (("--shutdown-timeout", "-1"), "must not be negative"),
        (("--shutdown-timeout", "nan"), "must be a number of seconds, not 'nan'"),
        (("--shutdown-timeout", "soon"), "must be a number of seconds, not 'soon'"),
        (("--queues", ","), "no queue is named"),
        (("--exclude-queues", "a:2"), "names without weights"),
        (("--database", "othr"), "Did you mean 'other'?"),
        (("--database", "other", "--backend", "other"), "not both"),
        (("--name", "\udcff"), r"printable characters, not '\udcff'"),
        (("--queues", "a,\udcff"), r"printable characters, not '\udcff'"),
        (("--exclude-queues", "\udcff"), r"printable characters, not '\udcff'"),
        (("--name", "\udcff", "--log-format", "json"), r"not '\\udcff'"),
    ],
)
def test_a_bad_option_is_a_clear_error(
    start_worker: StartWorker, options: tuple[str, ...], words: str
) -> None:
    worker = start_worker(*options, ready=False)
    assert worker.wait() in (1, 2)
    assert not Worker.objects.exists()
    assert words in worker.output()
    assert "Traceback" not in worker.output()


def test_the_banner_escapes_what_the_terminal_cannot_show(
    start_worker: StartWorker,
) -> None:
    worker = start_worker("--name", "größe", PYTHONIOENCODING="ascii")
    assert r"worker gr\xf6\xdfe" in worker.output()
    assert worker.stop() == 0


class _Ending:
    """Stands for a supervisor whose run is over at once."""

    has_failed = False

    def __init__(self, options: WorkerOptions) -> None: ...

    def stop(self, reason: str) -> None: ...

    def kill(self, reason: str) -> None: ...

    def run(self) -> None: ...


@pytest.mark.parametrize("has_failed", [False, True])
def test_a_worker_that_gave_up_is_an_error(
    monkeypatch: pytest.MonkeyPatch, has_failed: bool
) -> None:
    monkeypatch.setattr(_Ending, "has_failed", has_failed)
    monkeypatch.setattr(jobworker, "Supervisor", _Ending)
    monkeypatch.setattr(pool, "start_fork_server", lambda: None)
    command = jobworker.Command(stdout=io.StringIO())
    options = vars(command.create_parser("manage.py", "jobworker").parse_args([]))
    refusal = pytest.raises(CommandError, match="the worker gave up")
    with refusal if has_failed else nullcontext():
        command.handle(**options)


def json_lines(worker: WorkerProcess) -> list[dict[str, Any]]:
    """Return the worker's output, of which every line must be an object."""
    lines = worker.output().splitlines()
    strange = [line for line in lines if not line.startswith('{"')]
    assert not strange, worker.output()
    return [json.loads(line) for line in lines]


def test_json_logs_are_an_object_per_line(
    start_worker: StartWorker, audit: Path
) -> None:
    worker = start_worker("--processes", "1", "--log-format", "json", "--queues", "a:2")
    dying = tasks.die.using(max_attempts=1, queue_name="a")
    dying.enqueue(str(audit), "kill", times=99)
    wait_for(lambda: "child_gone" in worker.output())
    assert worker.stop() == 0
    entries = json_lines(worker)
    assert all({"time", "level", "logger", "message"} <= set(each) for each in entries)
    by_event = {each["event"]: each for each in entries}
    started = by_event["worker_started"]
    assert started["version"] == __version__
    assert started["database"] == "default"
    assert started["database_kind"] == connection.display_name
    assert started["queues"] == "a:2"
    assert started["concurrency"] == {"processes": 1, "threads": 1, "coroutines": 100}
    assert started["pid"] == worker.pid
    assert by_event["child_gone"]["code"] == -9
    assert by_event["stopping"]["reason"] == "SIGTERM"


def test_what_tasks_write_is_json_too(start_worker: StartWorker) -> None:
    task = tasks.speak_up.enqueue()
    options = ("--processes", "1", "--log-format", "json", "--burst")
    worker = start_worker(*options, ready=False)
    assert worker.wait() == 0
    entries = json_lines(worker)
    messages = {(each["logger"], each["message"]) for each in entries}
    assert ("stdout", "printed by a task") in messages
    assert ("stderr", "written by a task") in messages
    assert ("shop", "two\nlines of a logger") in messages
    assert any("a warning of a task" in text for _, text in messages)
    (finished,) = [each for each in entries if each.get("event") == "task_finished"]
    assert finished["task"] == tasks.speak_up.name
    assert finished["task_id"] == task.id
    assert (finished["attempt"], finished["verdict"]) == (1, "failed")
    assert isinstance(finished["duration_ms"], float)
    assert finished["error"] == "builtins.ValueError"
    assert finished["error_message"] == "spoken"
    assert finished["queue"] == tasks.speak_up.queue_name
    assert UUID(finished["worker"])


def test_what_a_task_prints_is_not_lost_in_text(start_worker: StartWorker) -> None:
    tasks.speak_up.enqueue()
    worker = start_worker(
        "--processes", "1", "--burst", ready=False, PYTHONUNBUFFERED=""
    )
    assert worker.wait() == 0
    assert "printed by a task" in worker.output()


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_what_has_no_end_of_a_line_is_not_lost(
    start_worker: StartWorker, log_format: str
) -> None:
    options = ("--processes", "1", "--threads", "2", "--log-format", log_format)
    worker = start_worker(*options, PYTHONUNBUFFERED="")
    tasks.murmur.enqueue().get(timeout=20)
    tasks.async_murmur.enqueue().get(timeout=20)
    assert "murmured by a task" in worker.output()
    assert "murmured by a coroutine" in worker.output()
    assert worker.output().count("murmured by a thread") == 1
    assert worker.stop() == 0
    if log_format == "json":
        said = {each["message"] for each in json_lines(worker)}
        places = ("task", "thread", "coroutine")
        assert said >= {f"murmured by a {place}" for place in places}


def save_until(module: Path, text: str, what: Callable[[], Any]) -> None:
    """Save a file, never half of it, again and again until the reloader noticed."""

    def has_happened() -> Any:
        draft = module.with_suffix(".draft")
        draft.write_text(text)
        draft.replace(module)
        return what()

    wait_for(has_happened)


@pytest.fixture
def reloading(
    start_worker: StartWorker, tmp_path: Path, worker_env: dict[str, str]
) -> tuple[WorkerProcess, Path]:
    """Return a worker that reloads, and a module that its project imports."""
    module = tmp_path / "changing.py"
    module.write_text("VALUE = 1\n")
    path = f"{tmp_path}:{worker_env['PYTHONPATH']}"
    options = ("--processes", "1", "--reload")
    worker = start_worker(*options, PYTHONPATH=path, JOBS_TEST_IMPORT="changing")
    return worker, module


def test_reload_restarts_the_worker_when_code_changes(
    reloading: tuple[WorkerProcess, Path],
) -> None:
    _, module = reloading
    first = Worker.objects.get().id
    assert tasks.imported_value.enqueue("changing").get(timeout=20) == 1

    def has_restarted() -> bool:
        return not Worker.objects.filter(id=first).exists()

    save_until(module, "VALUE = 2\n", has_restarted)
    assert tasks.imported_value.enqueue("changing").get(timeout=20) == 2


def test_reload_waits_for_broken_code_to_be_mended(
    reloading: tuple[WorkerProcess, Path],
) -> None:
    worker, module = reloading
    save_until(module, "VALUE = = 2\n", lambda: "event=code_changed" in worker.output())
    wait_for(lambda: "SyntaxError: invalid syntax" in worker.output())
    wait_for(lambda: "event=code_broken" in worker.output())
    assert worker.process.poll() is None
    assert not Worker.objects.exists()
    save_until(module, "VALUE = 3\n", Worker.objects.exists)
    assert tasks.imported_value.enqueue("changing").get(timeout=20) == 3
    assert worker.stop() == 0


def test_a_stop_ends_the_wait_for_mended_code(
    reloading: tuple[WorkerProcess, Path],
) -> None:
    worker, module = reloading
    broken = "import nothing_of_this_name\n"
    save_until(module, broken, lambda: "event=code_broken" in worker.output())
    assert worker.stop(timeout=5) == 0


SLOW = """
import os, pathlib, signal, time
if "DJANGO_JOBS_RELOAD_TRIAL" in os.environ:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    pathlib.Path(__file__).with_suffix(".pid").write_text(str(os.getpid()))
    time.sleep(60)
"""


def test_a_stop_ends_the_trial_of_new_code(
    reloading: tuple[WorkerProcess, Path],
) -> None:
    worker, module = reloading
    trial = module.with_suffix(".pid")
    save_until(module, SLOW, lambda: trial.exists() and trial.read_text())
    assert worker.stop(timeout=5) == 0
    assert not is_alive(int(trial.read_text()))


def test_a_reload_leaves_no_process_behind(
    reloading: tuple[WorkerProcess, Path],
) -> None:
    worker, module = reloading
    for value in (2, 3):
        started = worker.output().count("event=worker_started")
        helpers = {pid for pid in descendants(worker.pid) if is_alive(pid)}
        assert helpers

        def has_restarted(started: int = started) -> bool:
            return worker.output().count("event=worker_started") > started

        save_until(module, f"VALUE = {value}\n", has_restarted)
        wait_for(lambda: helpers.isdisjoint(descendants(worker.pid)))  # noqa: B023
    wait_for(lambda: all(map(is_alive, descendants(worker.pid))))


def test_ctrl_c_on_a_terminal_is_answered_at_each_press(
    worker_env: dict[str, str], audit: Path
) -> None:
    command = [sys.executable, "-m", "django", "jobworker", "--processes", "1"]
    terminal, theirs = pty.openpty()
    # Opened by the first of a new session, it becomes the terminal of that session.
    on_terminal = ["sh", "-c", 'exec "$@" <$0 >$0 2>&1', os.ttyname(theirs), *command]
    process = subprocess.Popen(on_terminal, env=worker_env, start_new_session=True)
    shown = ""

    def read_until(words: str) -> None:
        nonlocal shown
        while words not in shown:
            assert select.select([terminal], [], [], PATIENCE)[0], shown
            shown += os.read(terminal, 65536).decode()

    try:
        tasks.stubborn.enqueue(str(audit))
        wait_for(lambda: lines(audit))
        for answer in ("event=stopping", "event=interrupting", "event=killing"):
            os.write(terminal, b"\x03")
            read_until(answer)
        read_until("event=worker_stopped")
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait()
        os.close(terminal)
        os.close(theirs)
    said = shown.replace("\x1b[0m", "").replace("\x1b[32;1m", "").splitlines()
    assert said[0].startswith("django_jobs ")
    assert said[4].startswith("  pid ")
    assert all(re.match(r"(\^C)?[0-9]{4}-", line) for line in said[5:]), shown
    assert sum("^C" in line for line in said) == 3


def test_worker_signals_are_sent(start_worker: StartWorker, audit: Path) -> None:
    worker = start_worker("--processes", "1", JOBS_TEST_AUDIT=str(audit))
    assert worker.stop() == 0
    assert [line.split()[0] for line in lines(audit)] == ["started", "stopped"]


def test_a_manage_py_that_does_not_ask_for_its_name_starts_one_worker(
    worker_env: dict[str, str], tmp_path: Path
) -> None:
    script = tmp_path / "manage.py"
    script.write_text(
        "import sys\n"
        "from django.core.management import execute_from_command_line\n"
        "execute_from_command_line(sys.argv)\n"
    )
    result = tasks.add.enqueue(1, 2)
    command = [sys.executable, str(script), "jobworker", "--burst", "--processes", "1"]
    done = subprocess.run(command, env=worker_env, timeout=30, capture_output=True)
    assert done.returncode == 0
    assert done.stderr.count(b"event=worker_started") == 1
    assert result.get(timeout=0) == 3


_CALLED = """
import signal, sys
import django
django.setup()
from django.core.management import call_command
from django.db import connections
connections["default"].settings_dict["NAME"] = sys.argv[1]
handlers = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
call_command("jobworker", burst=True, processes=1)
assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == handlers
"""


def test_a_worker_that_a_test_calls_works_on_the_database_of_the_test(
    worker_env: dict[str, str],
) -> None:
    result = tasks.add.enqueue(1, 2)
    env = {**worker_env, "DJANGO_JOBS_TEST_NAME_DEFAULT": "of-the-settings"}
    name = str(connection.settings_dict["NAME"])
    command = [sys.executable, "-c", _CALLED, name]
    done = subprocess.run(command, env=env, timeout=60, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert result.get(timeout=0) == 3


@pytest.mark.skipif(connection.vendor != "sqlite", reason="only on sqlite")
def test_a_database_in_memory_is_refused(start_worker: StartWorker) -> None:
    worker = start_worker(ready=False, DJANGO_JOBS_TEST_NAME_DEFAULT=":memory:")
    assert worker.wait() == 1
    assert "in memory, where no other process sees it" in worker.output()


def test_a_project_that_cannot_be_loaded_is_a_clear_error(
    start_worker: StartWorker,
) -> None:
    worker = start_worker(ready=False, JOBS_TEST_IMPORT="tests.processes.not_there")
    assert worker.wait() == 1
    assert worker.output().endswith("No module named 'tests.processes.not_there'\n")


def test_a_project_that_only_children_cannot_load_is_told_once(
    start_worker: StartWorker,
) -> None:
    name = "tests.processes.broken_below"
    worker = start_worker("--processes", "1", JOBS_TEST_IMPORT=name)
    tasks.noop.enqueue()
    wait_for(lambda: worker.output().count("event=child_cannot_start") > 3)
    assert worker.output().count("Traceback") == 1
    words = 'error="ImportError: this module is broken below the worker"'
    assert words in worker.output()
    # Nobody took it from those who could run it.
    assert Task.objects.filter(state="READY", attempt=0).exists()
    assert worker.stop() == 0
