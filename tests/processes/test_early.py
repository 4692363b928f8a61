"""Connections and threads of a project that loads: no child shares one of them.

A session that two processes use corrupts both; over TLS it breaks at once.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import combinations
from pathlib import Path

import pytest
from django.db import connection

from django_jobs import enqueue_many
from django_jobs.models import Result
from tests.processes import private
from tests.processes.conftest import StartWorker
from tests.processes.early.tasks import sessions
from tests.processes.harness import WorkerProcess, census, descendants, wait_for

pytestmark = pytest.mark.django_db(transaction=True)

CHILDREN = 3
EVERY_WAY = "import ready thread driver"
SAID = "event=opened_too_early"


def start(start_worker: StartWorker, ways: str, **env: str) -> WorkerProcess:
    settings = "tests.processes.early.settings"
    env.update(EARLY=ways, DJANGO_SETTINGS_MODULE=settings)
    return start_worker("--processes", str(CHILDREN), **env)


def open_in(pid: int) -> set[str]:
    """Return what a process has open of the database: sockets, or files."""
    where = connection.settings_dict
    known = _sockets_to(int(where["PORT"] or 0) or _standard_port())
    found = set()
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            target = os.readlink(each)
            if target in known or target.startswith(str(where["NAME"])):
                found.add(target)
    return found


def _standard_port() -> int:
    return {"postgresql": 5432, "mysql": 3306}.get(connection.vendor, 0)


def _sockets_to(port: int) -> set[str]:
    """Return the sockets whose other end is this port, as the folder fd names them."""
    text = "".join(Path(f"/proc/net/{name}").read_text() for name in ("tcp", "tcp6"))
    rows = [row.split() for row in text.splitlines()]
    return {f"socket:[{row[9]}]" for row in rows if row[2].endswith(f":{port:04X}")}


def run_tasks(count: int) -> dict[int, set[int]]:
    """Return the sessions that each child used."""
    used: dict[int, set[int]] = {}
    results = enqueue_many([sessions.s() for _ in range(count)])
    for result in results:
        pid, *ids = result.get(timeout=20)
        used.setdefault(pid, set()).update(ids)
    return used


def test_what_the_main_thread_opened_is_closed(start_worker: StartWorker) -> None:
    worker = start(start_worker, "import ready")
    children = worker.children(CHILDREN)
    others = set(descendants(worker.pid)) - set(children)
    assert len(others) >= 1
    assert [open_in(pid) for pid in (*children, *others)] == [set()] * (
        len(children) + len(others)
    )
    sessions.enqueue().get(timeout=20)
    assert SAID not in worker.output()


def test_no_child_has_a_session_of_another_process(
    start_worker: StartWorker, requires: Callable[..., None]
) -> None:
    requires("postgresql", "mysql")
    worker = start(start_worker, EVERY_WAY)
    check_sessions(worker, run_tasks(60))
    wait_for(lambda: SAID in worker.output())
    assert worker.stop() == 0
    (line,) = re.findall(f"WARNING {SAID} .*", worker.output())
    assert "threads=poller" in line
    port = connection.settings_dict["PORT"] or _standard_port()
    assert line.count(f":{port}") == 2  # that of the thread, and that of the module


def check_sessions(worker: WorkerProcess, used: dict[int, set[int]]) -> None:
    """Is every session that of one process, for the server and for the kernel?"""
    for one, other in combinations(used.values(), 2):
        assert not one & other, used
    opened = {pid: open_in(pid) for pid in (worker.pid, *descendants(worker.pid))}
    assert any(opened[pid] for pid in used)
    for one, other in combinations(opened.values(), 2):
        assert not one & other, opened


def test_of_files_the_worker_warns(
    start_worker: StartWorker, requires: Callable[..., None]
) -> None:
    requires("sqlite")
    worker = start(start_worker, "thread driver")
    run_tasks(1)
    wait_for(lambda: SAID in worker.output())
    name = connection.settings_dict["NAME"]
    assert f"{SAID} threads=poller connections={name} hint=" in worker.output()


@pytest.fixture
def tls(
    requires: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> Iterator[dict[str, str]]:
    """Have the queue on a server that speaks TLS; return a worker's environment."""
    requires("postgresql")
    with private.nursery() as lent:
        node = private.make_node(lent, "ssl = on")
        make_certificate(node.data)
        for path in node.data.glob("server.*"):
            lent.give(path, private.USER)
        node.start()
        monkeypatch.setenv("PGSSLMODE", "require")
        with private.queue_on(node):
            yield {**private.environment(node), "PGSSLMODE": "require"}


def make_certificate(folder: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    files = ["-keyout", folder / "server.key", "-out", folder / "server.crt"]
    words = ["req", "-new", "-x509", "-nodes", "-subj", "/CN=127.0.0.1", *files]
    subprocess.run(["openssl", *words], check=True, capture_output=True)
    (folder / "server.key").chmod(0o600)


def test_over_tls_all_processes_have_sessions_of_their_own(
    start_worker: StartWorker, tls: dict[str, str]
) -> None:
    worker = start(start_worker, EVERY_WAY, **tls)
    check_sessions(worker, run_tasks(200))
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT bool_and(ssl), count(*) FROM pg_stat_ssl JOIN pg_stat_activity "
            "USING (pid) WHERE datname = current_database()"
        )
        is_tls, count = cursor.fetchone()
    assert is_tls
    assert count > CHILDREN
    assert worker.stop() == 0
    assert census() == {"tasks": 0, "results": 200, "dead letters": 0}
    assert set(Result.objects.values_list("attempt", flat=True)) == {1}
    assert "SSL" not in worker.output()
    assert "event=child_gone" not in worker.output()
