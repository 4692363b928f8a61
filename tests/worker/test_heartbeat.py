"""The worker's sign of life."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import OperationalError

from django_jobs.worker import heartbeat as module
from django_jobs.worker import outage as outage_module
from django_jobs.worker.heartbeat import Heartbeat
from django_jobs.worker.outage import Outage, missing_tables
from django_jobs.worker.watchdog import Watch
from tests.worker.parts import PATIENCE, wait_for

Beat = tuple[str, float, bool]


class BeatStore:
    """Notes renewals; fails or says no when it is told to."""

    alias = "default"

    def __init__(self) -> None:
        self.renewals: SimpleQueue[tuple[Any, ...]] = SimpleQueue()
        self.looks: SimpleQueue[str] = SimpleQueue()
        self.answers: list[bool | Exception] = []
        self.revoked: list[list[str] | Exception] = []

    def renew(self, worker_id: str, lease: float, *, state: str, running: int) -> bool:
        answer = self.answers.pop(0) if self.answers else True
        self.renewals.put((worker_id, lease, state, running))
        if isinstance(answer, Exception):
            raise answer
        return answer

    def revoke_requests(self, worker_id: str) -> list[str]:
        answer = self.revoked.pop(0) if self.revoked else []
        self.looks.put(worker_id)
        if isinstance(answer, Exception):
            raise answer
        return answer


class Scene:
    def __init__(self, interval: float, turn: Any = None) -> None:
        self.store = BeatStore()
        self.renewed: SimpleQueue[Beat] = SimpleQueue()
        self.revoked: SimpleQueue[list[str]] = SimpleQueue()
        self.heartbeat = Heartbeat(
            self.store,  # type: ignore[arg-type]
            turn or nullcontext(),
            interval=interval,
            lease=30.0,
            deadline=5.0,
            renewed=lambda *beat: self.renewed.put(beat),
            revoked=self.revoked.put,
            outage=Outage("default"),
            unmigrated=missing_tables("default"),
            watch=Watch("default"),
        )
        self.heartbeat.worker_id = "me"

    def start(self) -> None:
        self.heartbeat.start(time.monotonic())


@pytest.fixture
def start() -> Iterator[Callable[..., Scene]]:
    made: list[Scene] = []

    def make(interval: float = 0.001, turn: Any = None) -> Scene:
        made.append(Scene(interval, turn))
        return made[-1]

    yield make
    for scene in made:
        scene.heartbeat.close(PATIENCE)
        assert not scene.heartbeat._thread.is_alive()


Start = Callable[..., Scene]


def test_the_lease_is_renewed_again_and_again(start: Start) -> None:
    scene = start()
    scene.start()
    beats = [scene.renewed.get(timeout=PATIENCE) for _ in range(3)]
    assert [(beat[0], beat[2]) for beat in beats] == [("me", True)] * 3
    assert sorted(beats) == beats


def test_the_first_renewal_counts_from_when_the_lease_was_asked_for(
    start: Start,
) -> None:
    scene = start(interval=3600.0)
    scene.heartbeat.start(time.monotonic() - 3600.0)
    assert scene.renewed.get(timeout=PATIENCE)[2] is True


def test_the_row_says_how_the_worker_is(start: Start) -> None:
    scene = start()
    scene.heartbeat.state, scene.heartbeat.running = "stopping", 3
    scene.start()
    assert scene.store.renewals.get(timeout=PATIENCE) == ("me", 30.0, "stopping", 3)


def test_a_lost_lease_is_told(start: Start) -> None:
    scene = start()
    scene.store.answers = [False]
    scene.start()
    assert scene.renewed.get(timeout=PATIENCE)[2] is False


def test_a_failed_renewal_is_no_answer_and_is_repeated(
    start: Start, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outage_module.random, "uniform", lambda low, high: 1.0)
    scene = start()
    scene.store.answers = [OperationalError("away"), RuntimeError("odd"), True]
    scene.start()
    assert scene.renewed.get(timeout=PATIENCE)[2] is True
    wait_for(lambda: len(caplog.records) == 4)
    told = [(record.getMessage(), bool(record.exc_info)) for record in caplog.records]
    assert told == [
        ("event=database_unreachable alias=default error=away retry_in=0.1", False),
        ("event=heartbeat_failed alias=default error=odd retry_in=0.0", True),
        ("event=database_reachable alias=default", False),
        ("event=heartbeat_back alias=default", False),
    ]


def fail(*args: object) -> None:
    raise RuntimeError("not even this")


def test_a_connection_that_cannot_be_closed_does_not_end_the_signs_of_life(
    start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    connection = SimpleNamespace(close=fail)
    monkeypatch.setattr(module, "connections", {"default": connection})
    scene = start()
    scene.store.answers = [OperationalError("away"), True]
    scene.start()
    assert scene.renewed.get(timeout=PATIENCE)[2] is True
    connection.close = lambda: None
    assert "event=thread_failed" not in caplog.text


def test_an_error_of_ours_does_not_end_the_signs_of_life(
    start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(outage_module, "FAULT_PAUSE", 0.001)
    scene = start()
    monkeypatch.setattr(scene.heartbeat._outage, "failed", fail)
    scene.store.answers = [OperationalError("away"), OperationalError("away"), True]
    scene.start()
    assert scene.renewed.get(timeout=PATIENCE)[2] is True
    told = [each for each in caplog.records if "thread_failed" in each.getMessage()]
    assert caplog.messages == ["event=thread_failed part=heartbeat"] * 2
    assert all(each.exc_info for each in told)


def test_an_answer_counts_from_before_the_statement(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = start()
    begun, may_go = threading.Event(), threading.Event()

    def renew(*args: object, **more: object) -> bool:
        begun.set()
        return may_go.wait(PATIENCE)

    monkeypatch.setattr(scene.store, "renew", renew)
    scene.start()
    assert begun.wait(PATIENCE)
    now = module.time.monotonic()
    may_go.set()
    assert scene.renewed.get(timeout=PATIENCE)[1] <= now


def test_an_identity_that_changed_meanwhile_is_not_mixed_up(start: Start) -> None:
    turn = threading.Lock()
    scene = start(turn=turn)
    with turn:
        scene.start()
        scene.heartbeat.worker_id = "me anew"
    told = {scene.renewed.get(timeout=PATIENCE)[0] for _ in range(2)}
    assert told <= {"me", "me anew"}
    assert scene.store.renewals.get(timeout=PATIENCE)[0] in told


def test_revocations_are_looked_for_while_something_runs(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REVOKE_CHECK", 0.001)
    scene = start(interval=3600.0)
    scene.heartbeat.running = 1
    scene.store.revoked = [[], ["a", "b"]]
    scene.start()
    assert scene.revoked.get(timeout=PATIENCE) == ["a", "b"]
    assert scene.store.renewals.empty()


def test_a_failed_look_is_followed_by_a_sign_of_life_and_another_look(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REVOKE_CHECK", 0.001)
    scene = start(interval=3600.0)
    scene.heartbeat.running = 1
    scene.store.revoked = [OperationalError("away"), ["a", "b"]]
    scene.start()
    assert scene.renewed.get(timeout=PATIENCE)[2] is True
    assert scene.revoked.get(timeout=PATIENCE) == ["a", "b"]


def test_a_failed_renewal_is_repeated_long_before_the_next_is_due(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FAULT_PAUSE", 0.001)
    scene = start(interval=3600.0)
    scene.heartbeat.running = 1
    scene.store.revoked = [OperationalError("away")]
    scene.store.answers = [OperationalError("away"), RuntimeError("odd"), True]
    scene.start()
    scene.heartbeat.look_for_revocations()
    assert scene.renewed.get(timeout=PATIENCE)[2] is True
    assert scene.store.renewals.qsize() == 3


def test_the_lease_is_renewed_as_soon_as_another_thread_was_served(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outage_module, "pause_after", lambda failures: 3600.0)
    scene = start()
    outage = scene.heartbeat._outage
    scene.store.answers = [OperationalError("away")]
    scene.start()
    wait_for(lambda: outage._changed._waiters)  # type: ignore[attr-defined]
    assert scene.renewed.empty()
    outage.succeeded("another thread")
    assert scene.renewed.get(timeout=PATIENCE)[2] is True


def test_a_call_is_watched(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = start()
    calls: SimpleQueue[Any] = SimpleQueue()

    def renew(*args: object, **more: object) -> bool:
        calls.put(scene.heartbeat._watch.present)
        return True

    monkeypatch.setattr(scene.store, "renew", renew)
    scene.start()
    call = calls.get(timeout=PATIENCE)
    assert (call.name, call.deadline) == ("heartbeat", 5.0)


def test_an_idle_worker_looks_for_no_revocations(start: Start) -> None:
    scene = start()
    scene.start()
    scene.heartbeat.look_for_revocations()
    for _ in range(3):
        scene.renewed.get(timeout=PATIENCE)
    assert scene.store.looks.empty()


def test_a_hint_is_followed_at_once(start: Start) -> None:
    scene = start(interval=3600.0)
    scene.start()
    scene.heartbeat.running = 1
    scene.heartbeat.look_for_revocations()
    assert scene.store.looks.get(timeout=PATIENCE) == "me"


def test_the_first_task_begins_the_looks_for_revocations(start: Start) -> None:
    scene = start(interval=3600.0)
    scene.start()
    scene.heartbeat.set_running(1)
    assert scene.store.looks.get(timeout=PATIENCE) == "me"


def test_it_ends_at_once_although_the_next_beat_is_far(start: Start) -> None:
    scene = start(interval=3600.0)
    scene.start()
    scene.heartbeat.close(PATIENCE)
    wait_for(lambda: not scene.heartbeat._thread.is_alive())


def test_closing_one_that_was_never_started_does_no_harm(start: Start) -> None:
    start().heartbeat.close(PATIENCE)
