"""The demo from its start to its report, also when it is interrupted."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Process = subprocess.Popen[str]
Start = Callable[..., Process]

MANAGE = Path(__file__).resolve().parents[2] / "manage.py"

DATABASE = os.environ.get("DJANGO_JOBS_TEST_DATABASE", "sqlite")

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(DATABASE != "sqlite", reason="always runs on SQLite"),
]


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "demo.sqlite3"


@pytest.fixture
def start(database: Path) -> Iterator[Start]:
    environment = {**os.environ, "DATABASE_URL": f"sqlite:///{database}"}
    environment.pop("DJANGO_SETTINGS_MODULE", None)
    environment["PYTHONPATH"] = str(MANAGE.parents[1])
    started: list[Process] = []

    def start(*options: str) -> Process:
        command = [sys.executable, str(MANAGE), "demo", "--processes", "2", *options]
        process = subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()


def finish(process: Process) -> str:
    output, _ = process.communicate(timeout=120)
    return output


def count(database: Path, table: str) -> int:
    with sqlite3.connect(database, timeout=20) as connection:
        (number,) = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
    connection.close()
    return int(number)


def test_measures_files_and_says_what_it_found(start: Start, database: Path) -> None:
    process = start("--limit", "30")
    output = finish(process)
    assert process.returncode == 0, output
    assert "30 files found, 30 of them new" in output
    assert "tasks/s" in output
    assert "/admin/django_jobs/deadletter/" in output
    assert count(database, "django_jobs_task") == 0
    surveys = 2
    done = count(database, "django_jobs_result") + count(
        database, "django_jobs_deadletter"
    )
    assert done == 30 + surveys

    again = finish(start("--limit", "30"))
    assert "enqueued before" in again
    assert "Nothing left to do" in again


def test_goes_on_where_it_was_interrupted(start: Start, database: Path) -> None:
    process = start("--limit", "1500")
    deadline = time.monotonic() + 60
    while not database.exists() or not _has_results(database):
        assert process.poll() is None, finish(process)
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    output = finish(process)
    assert process.returncode == 130, output
    assert "goes on from here" in output
    left = count(database, "django_jobs_task")
    assert left > 0

    process = start("--limit", "1500")
    output = finish(process)
    assert process.returncode == 0, output
    assert "all of them enqueued before" in output
    assert f"{left:,}  tasks in" in output
    assert count(database, "django_jobs_task") == 0
    assert count(database, "library_sourcefile") == 1500


def _has_results(database: Path) -> bool:
    try:
        return count(database, "django_jobs_result") > 0
    except sqlite3.OperationalError:  # the tables are not there yet
        return False
