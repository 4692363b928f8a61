"""The server ends sessions that do nothing: nobody who comes back gets an error."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from django.db import connection, connections

from django_jobs.models import Result
from tests.processes.conftest import StartWorker
from tests.processes.early.tasks import SESSION, sessions
from tests.processes.forgotten import IDLE, forget
from tests.processes.harness import census, wait_for

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "other"]),
    pytest.mark.faults,
]

LISTED = {
    "postgresql": "SELECT count(*) FROM pg_stat_activity WHERE pid = %s",
    "mysql": "SELECT count(*) FROM information_schema.processlist WHERE id = %s",
}
#: What is INFO in the log, one line per session that was replaced, may be there.
BAD = (" ERROR ", " WARNING ", "Traceback")


def wait_until_ended(session: int) -> None:
    """Wait until the server has no such session any more, asking on another one."""

    def is_ended() -> bool:
        with connections["other"].cursor() as cursor:
            cursor.execute(LISTED[connection.vendor], [session])
            return cursor.fetchone() == (0,)

    wait_for(is_ended, IDLE + 20, f"the end of session {session}")


@pytest.fixture
def producer(requires: Callable[..., None]) -> Iterator[None]:
    """Have this process use sessions that are soon ended."""
    requires("postgresql", "mysql")
    options = connection.settings_dict["OPTIONS"]
    before = dict(options)
    connection.close()
    forget(options, connection.vendor)
    yield
    connection.close()
    options.clear()
    options.update(before)


def own_session() -> int:
    with connection.cursor() as cursor:
        cursor.execute(SESSION[connection.vendor])
        number: int = cursor.fetchone()[0]
        return number


def test_after_a_pause_a_worker_and_a_producer_go_on(
    start_worker: StartWorker, producer: None
) -> None:
    settings = {"DJANGO_SETTINGS_MODULE": "tests.processes.forgotten"}
    worker = start_worker("--processes", "1", **settings)
    result = sessions.enqueue()
    _, first = result.get(timeout=20)
    for session in (own_session(), first):
        wait_until_ended(session)
    result.refresh()
    wait_until_ended(own_session())
    _, second = sessions.enqueue().get(timeout=20)
    assert first != second
    assert not Result.objects.exclude(attempt=1).exists()
    assert census() == {"tasks": 0, "results": 2, "dead letters": 0}
    assert worker.stop() == 0
    # Who only listens is cut off by this, too: it pings every 30 s.
    told = [line for line in worker.output().splitlines() if "=listener_" not in line]
    assert [line for line in told if any(bad in line for bad in BAD)] == []
