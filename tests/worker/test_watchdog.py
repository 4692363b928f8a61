"""Calls of the database that nobody answers are ended."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import connections

from django_jobs.worker import watchdog as module
from django_jobs.worker.outage import is_trouble
from django_jobs.worker.watchdog import PATIENCE, PAUSE, Watch, Watchdog
from tests.worker.parts import wait_for

#: What nobody answers for so long is dead.
SOON = 0.05
Ends = tuple[socket.socket, socket.socket]


@pytest.fixture
def ends() -> Iterator[Ends]:
    """Return a connection of TCP: the end of a driver, and that of its server."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    yield ours, theirs
    ours.close()
    theirs.close()


def wrapper(raw: Any) -> Any:
    """Return a connection of Django's around one of a driver."""
    return SimpleNamespace(connection=raw)


def is_cut(end: socket.socket) -> bool:
    """Tell whether the other end of a connection was shut."""
    end.setblocking(False)
    try:
        return end.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False


@pytest.mark.parametrize("driver", ["descriptor", "PyMySQL"])
def test_a_call_on_which_nothing_moves_is_cut(
    ends: Ends, driver: str, caplog: pytest.LogCaptureFixture
) -> None:
    raw = ends[0] if driver == "descriptor" else SimpleNamespace(_sock=ends[0])
    watch = Watch("default")

    def look() -> bool:
        watch.look(time.monotonic())
        return is_cut(ends[1])

    with watch.call("claim", wrapper(raw), deadline=SOON):
        assert not look()
        wait_for(look)
        watch.look(time.monotonic())
    assert caplog.messages == [
        "event=database_silent alias=default call=claim seconds=0.1"
    ]


def test_a_long_call_on_which_something_moves_goes_on(ends: Ends) -> None:
    watch, begin = Watch("default"), time.monotonic()
    with watch.call("rescue", wrapper(ends[0]), deadline=SOON):
        while time.monotonic() < begin + 3 * SOON:
            ends[1].send(b"x")
            watch.look(time.monotonic())
        assert not is_cut(ends[1])


def test_bytes_that_are_sent_in_vain_again_and_again_do_not_count() -> None:
    def silence(is_repeating: int) -> float:
        told = module._TCP_INFO.pack(is_repeating, 100, 30_000)
        return module._silence(SimpleNamespace(getsockopt=lambda *a: told), 60)  # type: ignore[arg-type]

    assert [silence(0), silence(1)] == [0.1, 30.0]


def test_what_moved_before_the_call_began_does_not_count(ends: Ends) -> None:
    time.sleep(2 * SOON)
    watch = Watch("default")
    with watch.call("claim", wrapper(ends[0]), deadline=SOON):
        watch.look(time.monotonic())
        assert not is_cut(ends[1])


def test_between_two_calls_a_connection_may_be_silent(ends: Ends) -> None:
    watch = Watch("default")
    with watch.call("claim", wrapper(ends[0]), deadline=SOON):
        pass
    watch.look(time.monotonic() + 1000)
    assert not is_cut(ends[1])


def test_where_the_kernel_does_not_tell_a_call_has_more_time() -> None:
    ours, theirs = socket.socketpair()
    watch = Watch("default")
    with ours, theirs, watch.call("claim", wrapper(ours), deadline=10.0):
        now = time.monotonic()
        watch.look(now + 10 * PATIENCE - 1)
        assert not is_cut(theirs)
        watch.look(now + 10 * PATIENCE + 1)
        assert is_cut(theirs)


def closed() -> Any:
    one, other = socket.socketpair()
    one.close()
    other.close()
    return one


@pytest.mark.parametrize("raw", [None, object(), closed()], ids=type)
def test_a_call_without_a_connection_is_left_alone(
    raw: Any, caplog: pytest.LogCaptureFixture
) -> None:
    watch = Watch("default")
    with watch.call("claim", wrapper(raw), deadline=SOON):
        watch.look(time.monotonic() + 1000)
    assert caplog.messages == []


def test_after_a_pause_of_ours_the_threads_see_first_what_came_meanwhile(
    ends: Ends,
) -> None:
    watchdog = Watchdog()
    with watchdog.watch("default").call("claim", wrapper(ends[0]), deadline=SOON):
        now = time.monotonic()
        wait_for(lambda: time.monotonic() > now + 2 * SOON)
        watchdog.look(now)
        watchdog.look(now + 2 * PAUSE)
        assert not is_cut(ends[1])
        watchdog.look(now + 2 * PAUSE + 1)
        assert is_cut(ends[1])


SLEEP = {"postgresql": "SELECT pg_sleep(60)", "mysql": "SELECT SLEEP(60)"}
SESSION = {"postgresql": "SELECT pg_backend_pid()", "mysql": "SELECT CONNECTION_ID()"}
END = {"postgresql": "SELECT pg_terminate_backend(%s, 5000)", "mysql": "KILL %s"}


@pytest.mark.django_db(transaction=True)
def test_the_thread_gets_an_error_at_once_as_when_the_server_is_gone(
    requires: Any,
) -> None:
    requires(*SLEEP)
    watch, errors, sessions = Watch("default"), list[Exception](), list[int]()
    vendor = connections["default"].vendor

    def sleep() -> None:
        connection = connections["default"]
        with closing(connection), connection.cursor() as cursor:
            cursor.execute(SESSION[vendor])
            sessions.append(cursor.fetchone()[0])
            try:
                with watch.call("sleep", connection, deadline=0.5):
                    cursor.execute(SLEEP[vendor])
            except Exception as error:
                errors.append(error)

    thread = threading.Thread(target=sleep, daemon=True)
    thread.start()
    while thread.is_alive():
        watch.look(time.monotonic())
        thread.join(0.01)
    assert [is_trouble(error) for error in errors] == [True]
    # The server has not noticed that nobody waits any more.
    with connections["default"].cursor() as cursor:
        cursor.execute(END[vendor], sessions)
