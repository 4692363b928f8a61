"""What wakes an idle worker."""

from __future__ import annotations

import fcntl
import logging
import os
import resource
import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import OperationalError, connection

from django_jobs.store import get_store
from django_jobs.worker import listener as module
from django_jobs.worker import outage
from django_jobs.worker.listener import Listener, _Notifications
from django_jobs.worker.watchdog import Watch
from tests.worker.parts import PATIENCE, Clock, wait_for

Scripted = list[list[str]]


class Scene:
    """A listener whose connection and clock follow a script."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.wakes = 0
        self.pings: list[tuple[float, str]] = []
        self.heard: list[bool] = []
        store, watch = get_store("default"), Watch("default")
        self.listener = Listener(store, "default", "me", self.wake, watch)

    def wake(self) -> None:
        self.wakes += 1

    def play(self, *steps: list[str] | float) -> None:
        """Receive these payloads; a number is seconds without any."""
        script = list(steps)

        def wait(seconds: float) -> list[str]:
            self.heard.append(self.listener.is_heard)
            if not script:
                self.listener._stop.set()
                return []
            step = script[0]
            if isinstance(step, list):
                return script.pop(0)  # type: ignore[return-value]
            self.clock.now += seconds
            script[0] = step - seconds
            if script[0] <= 0:
                script.pop(0)
            return []

        notifications: Any = SimpleNamespace(wait=wait)
        connection: Any = SimpleNamespace(connection=None)
        self.listener._hear(notifications, connection)
        self.listener._stop.clear()

    def copy(self) -> Any:
        """Return a new connection of the alias that the queue is on."""
        pings, clock = self.pings, self.clock

        class Cursor:
            def __enter__(self) -> Cursor:
                return self

            def __exit__(self, *error: object) -> None: ...

            def execute(self, statement: str, parameters: list[str]) -> None:
                assert "pg_notify('django_jobs'" in statement
                pings.append((clock.now, parameters[0]))

        settings: dict[str, Any] = {"OPTIONS": {}}
        return SimpleNamespace(
            cursor=Cursor, close=lambda: None, settings_dict=settings
        )


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    scene = Scene(clock)
    monkeypatch.setattr(module, "connections", {"default": scene})
    return scene


# -- notifications -----------------------------------------------------------------


def test_a_notification_wakes(scene: Scene) -> None:
    scene.play([""], ["", ""])
    assert scene.wakes == 3


def test_pings_wake_nobody(scene: Scene) -> None:
    scene.play(["ping me", "ping another"])
    assert scene.wakes == 0


def test_notifications_are_relied_on_when_the_own_ping_comes_back(
    scene: Scene,
) -> None:
    scene.play(["ping another"], ["ping me"])
    assert scene.heard == [False, False, True]


def test_the_way_is_checked_again_and_again(scene: Scene) -> None:
    echo = ["ping me"]
    scene.play(echo, module.PING + 1, echo, module.PING + 1, echo)
    begin = scene.pings[0][0]
    times = [time - begin for time, _ in scene.pings]
    assert times == [0, module.PING, 2 * module.PING]
    assert {ping for _, ping in scene.pings} == {"ping me"}


def test_swallowed_notifications_are_said_once(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    scene.play(10 * module.PING)
    assert caplog.text.count("event=notifications_swallowed") == 1
    assert "LISTEN_DATABASE" in caplog.text
    assert not scene.listener.is_heard


def test_lost_notifications_are_said_once_and_no_more_relied_on(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    scene.play(["ping me"], 10 * module.PING)
    assert caplog.text.count("event=notifications_lost") == 1
    assert "swallowed" not in caplog.text
    assert not scene.listener.is_heard


def test_notifications_that_come_back_are_relied_on_again(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "django_jobs")
    scene.play(["ping me"], 2 * module.PING)
    scene.play(["ping me"], ["x"])
    assert scene.heard[-1]
    assert caplog.text.count("event=notifications_heard") == 2


def test_a_connection_that_is_half_open_is_given_up_within_half_a_minute(
    scene: Scene,
) -> None:
    begin = scene.clock.now
    scene.play(["ping me"], 10 * module.PING)
    assert len(scene.pings) == 2
    assert scene.clock.now - begin <= 30


def test_one_that_never_was_heard_is_kept(scene: Scene) -> None:
    scene.play(10 * module.PING)
    assert len(scene.pings) > 9


# -- the lock ----------------------------------------------------------------------


@pytest.fixture
def taken(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return for whom a lock was asked; the first attempt fails."""
    asked: list[str] = []

    def take(connection: object, worker_id: str) -> bool:
        asked.append(worker_id)
        return len(asked) > 1

    monkeypatch.setattr(module, "take_lock", take)
    return asked


def test_no_lock_is_taken_that_nobody_wants(scene: Scene, taken: list[str]) -> None:
    scene.play(10.0)
    assert (taken, scene.listener.lock) == ([], None)


def test_a_lock_is_tried_for_until_it_is_held(scene: Scene, taken: list[str]) -> None:
    scene.listener.lock_for = "me"
    scene.play(module.LOCK_AGAIN - 0.5)
    assert (taken, scene.listener.lock) == (["me"], None)
    scene.play(module.LOCK_AGAIN)
    scene.clock.now += 60
    assert (taken, scene.listener.lock) == (["me"] * 2, ("me", 2))


def test_each_session_and_each_identity_takes_its_lock(
    scene: Scene, taken: list[str]
) -> None:
    scene.listener.lock_for = "me"
    scene.play(3 * module.LOCK_AGAIN)
    scene.listener.lock_for = "me anew"
    scene.play(3 * module.LOCK_AGAIN)
    scene.play(3 * module.LOCK_AGAIN)
    assert taken == ["me", "me", "me anew", "me anew"]
    assert scene.listener.lock == ("me anew", 3)


def test_a_late_echo_is_an_echo(scene: Scene) -> None:
    scene.play(2 * module.ECHO, ["ping me"], ["x"])
    assert scene.heard[-1]


# -- poolers -----------------------------------------------------------------------


class Sessions:
    """Cursors whose statements are answered by these sessions of the server."""

    def __init__(self, *answers: int) -> None:
        self.answers = list(answers)
        self.statements: list[str] = []

    def execute(self, statement: str) -> None:
        self.statements.append(statement)

    def fetchone(self) -> tuple[int]:
        return (self.answers.pop(0),)


@pytest.mark.parametrize(
    ("ours", "theirs", "is_same"),
    [
        ([1, 1], [2], False),
        # A second question of ours would wait for the only session, which they hold.
        ([1], [1], True),
        ([1, 3], [2], True),
    ],
    ids=["direct", "one after the other", "another one meanwhile"],
)
def test_a_session_that_two_connections_share_is_noticed(
    ours: list[int], theirs: list[int], is_same: bool
) -> None:
    other = Sessions(*theirs)
    assert module._is_same_session(Sessions(*ours), other) is is_same
    assert (other.statements[0], other.statements[-1]) == ("BEGIN", "ROLLBACK")


@pytest.mark.django_db(transaction=True)
def test_no_session_that_others_use_is_made_to_listen(
    start: Start,
    requires: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    requires("postgresql")
    monkeypatch.setattr(module, "_is_same_session", lambda *cursors: True)
    monkeypatch.setattr(module, "PING", 0.01)
    monkeypatch.setattr(_Notifications, "wait", lambda *given: pytest.fail("listens"))
    looks: list[object] = []
    monkeypatch.setattr(module, "closing", lambda one: looks.append(1) or closing(one))
    listener, wakes = start(get_store("default"))
    wait_for(lambda: len(looks) > 4)
    assert not listener.is_heard
    assert wakes.empty()
    assert caplog.text.count("event=notifications_swallowed") == 1
    assert "listener_failed" not in caplog.text


@pytest.mark.django_db(transaction=True)
def test_the_ping_takes_the_way_of_the_queue(
    start: Start, requires: Any, caplog: pytest.LogCaptureFixture
) -> None:
    requires("postgresql")
    caplog.set_level(logging.INFO, "django_jobs")
    alone, _ = start(get_store("default"), alias="other")
    heard, _ = start(get_store("default"))
    wait_for(lambda: heard.is_heard)
    assert not alone.is_heard


# -- drivers -----------------------------------------------------------------------


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    yield ours, theirs
    ours.close()
    theirs.close()


Ends = tuple[socket.socket, socket.socket]


def test_psycopg_3_is_read_while_waiting_and_by_its_handler(ends: Ends) -> None:
    arrived = [
        SimpleNamespace(extra=b"one"),
        SimpleNamespace(extra="zw\u00f6lf".encode()),
    ]
    handlers: list[Callable[[Any], None]] = []
    pgconn = SimpleNamespace(
        consume_input=lambda: ends[0].recv(1),
        notifies=lambda: arrived.pop(0) if arrived else None,
    )
    raw = SimpleNamespace(
        pgconn=pgconn, fileno=ends[0].fileno, add_notify_handler=handlers.append
    )
    notifications = _Notifications(raw)
    ends[1].send(b"x")
    assert notifications.wait(PATIENCE) == ["one", "zw\u00f6lf"]
    handlers[0](SimpleNamespace(payload="during a statement"))
    assert notifications.wait(PATIENCE) == ["during a statement"]


def test_psycopg2_is_polled(ends: Ends) -> None:
    raw = SimpleNamespace(
        poll=lambda: ends[0].recv(1),
        fileno=ends[0].fileno,
        notifies=[SimpleNamespace(payload="one"), SimpleNamespace(payload="two")],
    )
    ends[1].send(b"x")
    assert _Notifications(raw).wait(PATIENCE) == ["one", "two"]
    assert raw.notifies == []


def test_a_connection_whose_descriptor_is_high_is_waited_for(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if before[1] < 2048:
        pytest.skip("no descriptor is that high here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (2048, before[1]))
    high = fcntl.fcntl(ends[0], fcntl.F_DUPFD_CLOEXEC, 1500)
    try:
        raw = SimpleNamespace(
            poll=lambda: ends[0].recv(1),
            fileno=lambda: high,
            notifies=[SimpleNamespace(payload="one")],
        )
        ends[1].send(b"x")
        assert _Notifications(raw).wait(PATIENCE) == ["one"]
    finally:
        os.close(high)
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


# -- the thread --------------------------------------------------------------------


class CountingStore:
    """A store with a counter of changes."""

    alias = "default"
    can_notify = False
    can_count = True

    def __init__(self, *answers: int | Exception | None) -> None:
        self.answers = list(answers)

    def changes(self) -> int | None:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


Start = Callable[..., tuple[Listener, "SimpleQueue[str]"]]


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    monkeypatch.setattr(module, "COUNTER_LOOK", 0.0001)
    monkeypatch.setattr(module, "RECONNECT", 0.0001)
    made: list[Listener] = []

    def run(store: Any, alias: str = "default") -> tuple[Listener, SimpleQueue[str]]:
        wakes: SimpleQueue[str] = SimpleQueue()
        watch = Watch(alias)
        made.append(Listener(store, alias, "me", lambda: wakes.put("wake"), watch))
        made[-1].start()
        return made[-1], wakes

    yield run
    for listener in made:
        listener.close(PATIENCE)
        assert listener._thread is None or not listener._thread.is_alive()


def test_a_counter_that_changes_wakes_once_per_change(start: Start) -> None:
    store = CountingStore(1, 1, 1, 2, 2, 3)
    listener, wakes = start(store)
    for _ in range(3):  # one for what was committed before
        wakes.get(timeout=PATIENCE)
    wait_for(lambda: len(store.answers) == 1)
    assert listener.is_heard
    assert wakes.empty()


def test_where_nothing_can_be_heard_no_thread_is_started(start: Start) -> None:
    store = CountingStore(1, 2)
    store.can_count = False
    listener, _ = start(store)
    assert listener._thread is None
    assert store.answers == [1, 2], "the loop has asked"
    assert not listener.is_heard


def test_a_database_that_is_away_at_the_start_is_waited_for(start: Start) -> None:
    store = CountingStore(OperationalError("away"), OperationalError("away"), 1, 1)
    listener, wakes = start(store)
    wakes.get(timeout=PATIENCE)
    wait_for(lambda: listener.is_heard)


def test_an_error_of_ours_does_not_end_the_thread(
    start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*args: object) -> None:
        raise RuntimeError("not even this")

    monkeypatch.setattr(outage, "FAULT_PAUSE", 0.001)
    monkeypatch.setattr(Listener, "_say_failed", fail)
    listener, wakes = start(CountingStore(OperationalError("away"), 1, 1))
    wakes.get(timeout=PATIENCE)
    wait_for(lambda: listener.is_heard)
    assert caplog.messages == ["event=thread_failed part=listener"]


def test_after_a_fault_it_listens_again_and_wakes_for_what_it_missed(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    store = CountingStore(1, 1, 1, OperationalError("away"), 7, 7)
    listener, wakes = start(store)
    for _ in range(2):
        wakes.get(timeout=PATIENCE)
    wait_for(lambda: len(caplog.records) == 2)
    failed, back = caplog.records
    words = "event=listener_failed alias=default error=away retry_in=0.0"
    assert failed.getMessage() == words
    assert (failed.levelno, failed.exc_info) == (logging.WARNING, False)
    assert back.getMessage() == "event=listener_back alias=default"
    wait_for(lambda: listener.is_heard)


def test_a_fault_of_another_kind_is_told_with_its_traceback_once(
    start: Start, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LONGEST_WAIT", 0.001)
    start(CountingStore(1, RuntimeError("odd"), RuntimeError("odd"), 7, 7))
    wait_for(lambda: len(caplog.records) == 2)
    assert [record.getMessage() for record in caplog.records] == [
        f"event=listener_failed failures={count} error=odd" for count in (1, 2)
    ]
    assert [bool(record.exc_info) for record in caplog.records] == [True, False]


def test_the_connection_that_counted_is_closed_at_the_end(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[str] = []
    connections = {
        name: SimpleNamespace(close=lambda name=name: closed.append(name))
        for name in ("default", "other")
    }
    monkeypatch.setattr(module, "connections", connections)
    listener, wakes = start(CountingStore(1), alias="other")
    wakes.get(timeout=PATIENCE)
    listener.close(PATIENCE)
    assert closed == ["default"]


def test_without_notifications_by_the_settings_none_are_awaited(
    start: Start, settings: Any
) -> None:
    settings.DJANGO_JOBS = {"NOTIFY": False}
    store = SimpleNamespace(can_notify=True, alias="default")
    listener, wakes = start(store)
    assert listener._thread is None
    assert wakes.empty()


@pytest.mark.django_db(transaction=True)
def test_a_real_notification_wakes(start: Start, requires: Any) -> None:
    requires("postgresql")
    store = get_store("default")
    listener, wakes = start(store)
    wait_for(lambda: listener.is_heard)
    while not wakes.empty():
        wakes.get()
    store.notify()
    assert wakes.get(timeout=PATIENCE) == "wake"


@pytest.mark.django_db(transaction=True)
def test_a_cut_connection_is_replaced(start: Start, requires: Any) -> None:
    requires("postgresql")
    listener, wakes = start(get_store("default"))
    wait_for(lambda: listener.is_heard)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND query = 'LISTEN django_jobs'"
        )
    wait_for(lambda: not listener.is_heard or wakes.qsize() > 1)
    wait_for(lambda: listener.is_heard and wakes.qsize() > 1)
