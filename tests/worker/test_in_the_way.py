"""A whole worker, when an answer comes late or not at all, or a row is locked."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from typing import Any

import pytest
from django.db import OperationalError, connections
from django.test import override_settings

from django_jobs import task
from django_jobs.models import Result, Task
from django_jobs.states import State, Verdict
from django_jobs.store import get_store, portable, postgresql
from django_jobs.store.portable import PortableStore
from django_jobs.store.postgresql import PostgreSQLStore
from django_jobs.worker import completer
from django_jobs.worker.unwritten import LOCKED_WAIT
from tests.processes.proxy import Proxy
from tests.store.samples import OTHER_WORKER, WORKER, claim
from tests.worker import life
from tests.worker.inprocess import InProcessWorker, short_pauses
from tests.worker.parts import PATIENCE, claimed, outcome, wait_for

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("_on_a_server"),
    pytest.mark.faults,
]

may_go = threading.Event()


@task
def wait() -> None:
    may_go.wait(PATIENCE)


#: After which silence a call is given up here, in seconds.
DEADLINE = 0.3


@pytest.fixture
def _on_a_server(requires: Callable[..., None]) -> Iterator[None]:
    requires("postgresql", "mysql")
    with short_pauses(), override_settings(DJANGO_JOBS=life.SETTINGS):
        yield
    life.forget()


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """The way of all threads but this one to the server."""
    connection = connections["default"]
    connection.ensure_connection()
    server = connections.settings["default"]
    standard = {"postgresql": 5432, "mysql": 3306}[connection.vendor]
    with Proxy(server["HOST"], int(server["PORT"] or standard)) as made:
        monkeypatch.setitem(server, "PORT", made.port)
        yield made


@pytest.fixture
def lock() -> Iterator[Callable[[str], None]]:
    """Lock the row of a task as a console does, until the test rolls that back."""
    with closing(connections["default"].copy()) as console:

        def lock_row(task_id: str) -> Any:
            console.inc_thread_sharing()
            console.set_autocommit(False)
            with console.cursor() as cursor:
                cursor.execute(
                    f"SELECT id FROM {Task._meta.db_table} WHERE id = %s FOR UPDATE",
                    [get_store().to_id(task_id)],  # type: ignore[attr-defined]
                )
                assert cursor.fetchone()
            return console

        yield lock_row


def is_done(count: int) -> Callable[[], bool]:
    return lambda: Result.objects.count() == count


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """For whom it was asked what is held."""
    asked: list[str] = []
    held = PortableStore.held

    def ask(self: PortableStore, worker_id: str) -> list[tuple[str, int]]:
        answer = held(self, worker_id)
        asked.append(worker_id)
        return answer

    monkeypatch.setattr(PortableStore, "held", ask)
    return asked


@pytest.fixture
def hold_claim(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Hold back what comes after a point of the first claim, and give that up soon."""
    monkeypatch.setattr(completer, "DEADLINE", DEADLINE)

    def begin(point: str) -> None:
        points = [point]

        def reach(name: str) -> None:
            if name in points:
                points.remove(name)
                proxy.hold()

        for module in (portable, postgresql):
            monkeypatch.setattr(module, "reach", reach)

    return begin


def test_a_claim_whose_commit_is_delivered_late_is_given_back(
    proxy: Proxy,
    hold_claim: Callable[[str], None],
    looks: list[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(PostgreSQLStore, "_can_pipeline", False)
    hold_claim("claim.after_update")
    life.succeed.enqueue("late")
    with InProcessWorker(threads=1):
        wait_for(lambda: looks)
        assert not Result.objects.exists()
        proxy.deliver()
        wait_for(is_done(1))
    assert "event=claims_reconciled tasks=1" in caplog.text
    assert Result.objects.get().attempt == 1


def test_a_claim_that_is_delivered_late_is_given_back(
    requires: Callable[..., None],
    proxy: Proxy,
    hold_claim: Callable[[str], None],
    looks: list[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    requires("postgresql")  # elsewhere it is no single message
    hold_claim("claim.before")
    may_go.clear()
    with InProcessWorker(threads=1, coroutines=0):
        wait_for(lambda: looks)
        wait.enqueue()
        wait_for(Task.objects.filter(state=State.RUNNING).exists)
        life.succeed.enqueue("late")
        proxy.deliver()
        wait_for(lambda: "event=claims_reconciled tasks=1" in caplog.text)
        may_go.set()
        wait_for(is_done(2))


def test_a_lost_claim_whose_row_is_locked_holds_up_no_other(
    lock: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    consoles: list[Any] = []
    cycle = PortableStore.cycle

    def lose_answer(self: PortableStore, *args: Any, **options: Any) -> Any:
        answer = cycle(self, *args, **options)
        if answer.claimed and not consoles:
            consoles.append(lock(answer.claimed[0].id))
            raise OperationalError("the answer is lost")
        return answer

    monkeypatch.setattr(PortableStore, "cycle", lose_answer)
    life.succeed.enqueue("locked")
    with InProcessWorker(threads=1):
        wait_for(lambda: consoles)
        for number in range(5):
            life.succeed.enqueue(f"free {number}")
        wait_for(is_done(5))
        consoles[0].rollback()
        wait_for(is_done(6))


def test_a_due_task_that_is_locked_does_not_keep_the_worker_busy(
    lock: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    promotions: list[float] = []
    promote = type(get_store()).promote

    def count(self: Any, *args: Any) -> int:
        promotions.append(time.monotonic())
        return promote(self, *args)

    monkeypatch.setattr(type(get_store()), "promote", count)
    locked = life.succeed.using(run_after=timedelta(seconds=0.2)).enqueue("locked")
    console = lock(locked.id)
    rarely = {"POLL_FASTEST": 10.0, "POLL_SLOWEST": 10.0, "POLL": 10.0}
    settings = override_settings(DJANGO_JOBS=life.SETTINGS | rarely)
    with settings, InProcessWorker(threads=1):
        # Some of them for other reasons: it has just started, and was woken.
        wait_for(lambda: len(promotions) >= 7)
        assert promotions[6] - promotions[0] >= 2 * LOCKED_WAIT
        console.rollback()
        wait_for(is_done(1))


def test_outcomes_of_a_former_self_end_as_those_of_its_own_do(
    caplog: pytest.LogCaptureFixture,
) -> None:
    life.succeed.enqueue("again")
    (ours,) = claim(get_store(), worker=OTHER_WORKER)
    lost = outcome(claimed())
    rarely = {"POLL_FASTEST": 60.0, "POLL_SLOWEST": 60.0, "POLL": 60.0}
    settings = override_settings(DJANGO_JOBS=life.SETTINGS | rarely)
    with settings, InProcessWorker(threads=1) as worker:
        exchange = worker.supervisor.exchange
        wait_for(lambda: exchange.is_claiming and exchange.is_idle)
        worker.supervisor.mailbox.post(lambda: exchange.add(lost, WORKER))
        wait_for(lambda: f"event=stale_outcomes tasks={lost.id}" in caplog.text)
        retry = outcome(ours, verdict=Verdict.RETRY, delay=0.2)
        worker.supervisor.mailbox.post(lambda: exchange.add(retry, OTHER_WORKER))
        wait_for(is_done(1))
