"""The command line of ``jobworker``: its banner, its options, its errors."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from django.db import connection

from django_jobs import __version__
from django_jobs.models import Worker
from tests.processes import tasks
from tests.processes.conftest import StartWorker
from tests.processes.harness import lines, wait_for

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
    ],
)
def test_a_bad_option_is_a_clear_error(
    start_worker: StartWorker, options: tuple[str, ...], words: str
) -> None:
    worker = start_worker(*options, ready=False)
    assert worker.wait() != 0
    assert words in worker.output()
    assert "Traceback" not in worker.output()


def test_json_logs_are_an_object_per_line(
    start_worker: StartWorker, audit: Path
) -> None:
    worker = start_worker("--processes", "1", "--log-format", "json")
    tasks.die.using(max_attempts=1).enqueue(str(audit), "kill", times=99)
    wait_for(lambda: "child_gone" in worker.output())
    assert worker.stop() == 0
    logged = [line for line in worker.output().splitlines() if line.startswith("{")]
    events = [json.loads(line)["message"] for line in logged]
    assert any("event=worker_started" in event for event in events)
    assert any("event=child_gone" in event for event in events)


def test_reload_restarts_the_worker_when_code_changes(
    start_worker: StartWorker, tmp_path: Path, worker_env: dict[str, str]
) -> None:
    module = tmp_path / "changing.py"
    module.write_text("VALUE = 1\n")
    path = f"{tmp_path}:{worker_env['PYTHONPATH']}"
    start_worker(
        "--processes", "1", "--reload", PYTHONPATH=path, JOBS_TEST_IMPORT="changing"
    )
    first = Worker.objects.get().id
    assert tasks.imported_value.enqueue("changing").get(timeout=20) == 1

    def has_restarted() -> bool:
        # The reloader compares times of one second: write until it noticed.
        module.write_text("VALUE = 2  # changed\n")
        return not Worker.objects.filter(id=first).exists()

    wait_for(has_restarted)
    assert tasks.imported_value.enqueue("changing").get(timeout=20) == 2


def test_worker_signals_are_sent(start_worker: StartWorker, audit: Path) -> None:
    worker = start_worker("--processes", "1", JOBS_TEST_AUDIT=str(audit))
    assert worker.stop() == 0
    assert [line.split()[0] for line in lines(audit)] == ["started", "stopped"]
