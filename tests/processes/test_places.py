"""Enqueueing from odd places works, or says why it does not: nothing is just gone."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from asgiref.testing import ApplicationCommunicator
from django.core.handlers.asgi import ASGIHandler
from django.db import connection
from django.test import TestCase, override_settings

from django_jobs import TaskNotFound, fetch_result
from django_jobs.models import Result, Task
from django_jobs.signals import task_enqueued
from tests.processes import places, tasks

committed = pytest.mark.django_db(transaction=True)

BUSY = "ConnectionBusy: the connection 'default' is in the middle of a call"
Run = Callable[[Callable[[], None]], list[str]]


@pytest.fixture
def run(worker_env: dict[str, str]) -> Run:
    """Run a program that enqueues in a process of its own; return what it said."""

    def run_in_process(place: Callable[[], None]) -> list[str]:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", places.__name__, place.__name__],
            env=worker_env,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.splitlines()

    return run_in_process


@committed
def test_a_handler_of_a_signal_in_the_middle_of_a_query(run: Run) -> None:
    said = run(places.in_signal_handler)
    struck, after = said[::2], said[1::2]
    if connection.vendor == "sqlite":
        assert struck == ["enqueued"] * 2  # Python waits with the handler
    else:
        assert [each.startswith(BUSY) for each in struck] == [True] * 2
    assert after == ["enqueued"] * 2
    assert Task.objects.count() == said.count("enqueued")


@committed
def test_while_the_interpreter_ends(run: Run) -> None:
    thread, at_exit, at_exit_async = run(places.at_the_end)
    assert [thread, at_exit] == ["enqueued"] * 2
    # asgiref has ended its threads by then, and says so.
    assert at_exit_async.startswith("RuntimeError: cannot schedule new futures")
    assert Task.objects.count() == 2


@committed
def test_a_daemon_that_is_cut_off_has_lost_nothing_that_was_answered(run: Run) -> None:
    said = run(places.in_daemon_thread)
    assert set(said) == {"enqueued"}
    assert len(said) <= Task.objects.count() <= len(said) + 1


# -- ASGI ---------------------------------------------------------------------------


async def get(path: str, query: str = "") -> tuple[int, str]:
    """Call the site through Django's handler, as a server does."""
    scope = {
        "type": "http",
        "method": "GET",
        "path": path,
        "query_string": query.encode(),
        "headers": [(b"host", b"testserver")],
    }
    call = ApplicationCommunicator(ASGIHandler(), scope)
    await call.send_input({"type": "http.request", "body": b""})
    start = await call.receive_output(timeout=20)
    body = await call.receive_output(timeout=20)
    await call.wait(timeout=20)
    return start["status"], body["body"].decode()


@pytest.fixture
def site() -> Iterator[None]:
    with override_settings(ROOT_URLCONF=places.__name__):
        yield


@committed
@pytest.mark.usefixtures("site")
def test_views_under_asgi() -> None:
    async def get_many() -> list[tuple[int, str]]:
        paths = ["/awaits/", "/plain/"] * 5
        calls = [get(path, f"number={n}") for n, path in enumerate(paths)]
        return await asyncio.gather(*calls)

    answers = async_to_sync(get_many)()
    assert {status for status, _ in answers} == {200}
    assert [fetch_result(task_id).args[1] for _, task_id in answers] == [*range(10)]


@committed
@pytest.mark.usefixtures("site")
def test_a_view_that_does_not_await_is_told_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    status, _ = async_to_sync(get)("/forgets/")
    assert status == 500
    assert "SynchronousOnlyOperation" in caplog.text
    assert not Task.objects.exists()


# -- Django's TestCase --------------------------------------------------------------


class InTestCase(TestCase):
    """Everything is rolled back at the end, and no commit ever comes."""

    def test_the_row_is_there_at_once(self) -> None:
        result = tasks.add.enqueue(1, 1)
        self.assertEqual(Task.objects.get().pk.hex, result.id.replace("-", ""))

    def test_what_waits_for_the_commit_says_that_it_did_not_come(self) -> None:
        result = tasks.add.using(on_commit=True).enqueue(1, 1)
        self.assertFalse(Task.objects.exists())
        with self.assertRaisesRegex(TaskNotFound, r"did not commit \(yet\)"):
            result.refresh()

    def test_callbacks_of_the_commit_can_be_played(self) -> None:
        told: list[Any] = []

        def receive(task_result: Any, **kwargs: Any) -> None:
            told.append(task_result.id)

        task_enqueued.connect(receive)
        self.addCleanup(task_enqueued.disconnect, receive)
        with self.captureOnCommitCallbacks(execute=True):
            now = tasks.add.enqueue(1, 1)
            later = tasks.add.using(on_commit=True).enqueue(1, 2)
            self.assertEqual(Task.objects.count(), 1)
        self.assertEqual(Task.objects.count(), 2)
        self.assertEqual(sorted(told), sorted([now.id, later.id]))
        self.assertFalse(Result.objects.exists())
