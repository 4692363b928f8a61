"""Workers behind a real PgBouncer: what it lets through, and what it swallows."""

from __future__ import annotations

import os
import shutil
import socket
import statistics
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from django.db import connection

from tests.processes import tasks
from tests.processes.conftest import StartWorker
from tests.processes.harness import census, finished, wait_for
from tests.processes.test_waking import waits

pytestmark = pytest.mark.django_db(transaction=True)

#: Debian keeps it where only root looks for programs.
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"
#: Settings of a database in the query of its URL.
AS_DOCUMENTED = "?DISABLE_SERVER_SIDE_CURSORS=True"
#: What the log of a worker says.
HEARD, SWALLOWED = "event=notifications_heard", "event=notifications_swallowed"
FAULT = "event=database_failing"

Pooler = Callable[[str], int]


@pytest.fixture
def pooler(requires: Callable[..., None], tmp_path: Path) -> Iterator[Pooler]:
    """Start a pooler in this mode; return its port."""
    requires("postgresql")
    program = shutil.which("pgbouncer", path=PATH)
    if program is None:
        pytest.skip("pgbouncer is not installed")
    started: list[subprocess.Popen[bytes]] = []

    def start(mode: str) -> int:
        port = free_port()
        config = tmp_path / "pgbouncer.ini"
        config.write_text(configuration(mode, port))
        with (tmp_path / "pgbouncer.log").open("wb") as log:
            started.append(subprocess.Popen([program, config], stdout=log, stderr=log))
        wait_for(lambda: answers(port), words="pgbouncer answers")
        return port

    yield start
    for process in started:
        process.kill()
        process.wait(5)


def configuration(mode: str, port: int) -> str:
    server = connection.settings_dict
    where = {
        "host": server["HOST"],
        "port": server["PORT"] or 5432,
        "user": server["USER"],
        "password": server["PASSWORD"],
    }
    words = " ".join(f"{name}={value}" for name, value in where.items() if value)
    # It does not run as root; the package of Debian brings this user along.
    user = "user = postgres" if os.geteuid() == 0 else ""
    return f"""
[databases]
* = {words}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
{user}
"""


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def behind(port: int, given: str = AS_DOCUMENTED) -> dict[str, str]:
    """Return what a worker's environment needs to reach its database through a port."""
    user = connection.settings_dict["USER"]
    url = f"postgres://{user}@127.0.0.1:{port}/postgres{given}"
    return {"DJANGO_JOBS_TEST_POSTGRESQL_URL": url}


@contextmanager
def enqueueing_behind(port: int) -> Iterator[None]:
    """Have this process, too, reach its database through a port."""
    server = connection.settings_dict
    before = {key: server[key] for key in ("HOST", "PORT")}
    connection.close()
    server.update(HOST="127.0.0.1", PORT=port)
    try:
        yield
    finally:
        connection.close()
        server.update(before)


def run_some(count: int) -> None:
    results = [tasks.add.enqueue(number, 1) for number in range(count)]
    failing = tasks.fail.enqueue()
    wait_for(finished(count + 1))
    assert [result.get(timeout=1) for result in results] == list(range(1, count + 1))
    failing.refresh()
    assert (len(failing.errors), census()["dead letters"]) == (3, 1)


@pytest.mark.parametrize("given", [AS_DOCUMENTED, ""], ids=["documented", "plain"])
def test_in_transaction_mode_a_worker_polls_and_says_so_once(
    start_worker: StartWorker, pooler: Pooler, given: str
) -> None:
    port = pooler("transaction")
    worker = start_worker("--processes", "2", JOBS_POLL="60", **behind(port, given))
    wait_for(lambda: SWALLOWED in worker.output())
    with enqueueing_behind(port):
        run_some(50)
        # As without notifications: the slowest poll is 100 ms.
        assert statistics.median(waits(10)) < 0.2
    assert worker.stop() == 0
    assert HEARD not in worker.output()
    assert worker.output().count(SWALLOWED) == 1
    assert FAULT not in worker.output()


def test_in_session_mode_notifications_arrive(
    start_worker: StartWorker, pooler: Pooler
) -> None:
    worker = start_worker(
        "--processes", "2", JOBS_POLL="60", **behind(pooler("session"))
    )
    wait_for(lambda: HEARD in worker.output())
    run_some(50)
    assert statistics.median(waits(10)) < 0.2
    assert worker.stop() == 0
    assert SWALLOWED not in worker.output()
    assert FAULT not in worker.output()
