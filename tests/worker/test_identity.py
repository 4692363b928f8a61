"""The worker's id and lease."""

from __future__ import annotations

import os
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from django.test import override_settings

from django_jobs.conf import conf
from django_jobs.records import NewWorker
from django_jobs.worker import identity as module
from django_jobs.worker import processes
from django_jobs.worker.identity import FENCE, LOCK_FENCE, LOCK_GRACE, Identity
from django_jobs.worker.options import WorkerOptions
from tests.worker.parts import Clock, FakeStore, HandCompleter


class RegisterStore(FakeStore):
    def __init__(self) -> None:
        super().__init__()
        self.registered: list[tuple[NewWorker, float]] = []

    def register(self, worker: NewWorker, lease: float) -> None:
        self.registered.append((worker, lease))


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(module, "kind_of", lambda alias: f"that of {alias}")
    store = RegisterStore()
    completer = HandCompleter(store)
    told: list[NewWorker] = []
    options = WorkerOptions(database="default", name="x" * 300, queues=("a", "b"))
    identity = Identity(options, completer, told.append)
    yield SimpleNamespace(
        clock=clock, store=store, completer=completer, told=told, identity=identity
    )


def test_a_worker_is_itself_only_when_its_row_is_written(
    scene: SimpleNamespace,
) -> None:
    scene.identity.register()
    assert (scene.identity.is_registered, scene.told) == (False, [])
    scene.completer.do()
    assert scene.identity.is_registered
    assert scene.told == [scene.identity.worker]


def test_what_the_database_is_called_is_asked_with_the_registration(
    scene: SimpleNamespace,
) -> None:
    scene.identity.register()
    assert scene.identity.database_kind == ""
    scene.completer.work()  # in a thread of the completer's
    assert scene.identity.database_kind == "that of default"


def test_the_row_says_which_process_it_is(scene: SimpleNamespace) -> None:
    scene.identity.register()
    scene.completer.do()
    ((worker, lease),) = scene.store.registered
    assert (worker.pid, worker.boot) == (os.getpid(), processes.boot())
    assert worker.pid_start == processes.pid_start(os.getpid())
    assert (len(worker.name), worker.queues, lease) == (200, "a,b", conf().LEASE)


def test_every_registration_has_a_fresh_id(scene: SimpleNamespace) -> None:
    for _ in range(3):
        scene.identity.register()
        scene.completer.do()
    assert len({worker.id for worker, _ in scene.store.registered}) == 3


def test_the_lease_is_doubtful_before_it_is_over(scene: SimpleNamespace) -> None:
    scene.identity.register()
    scene.completer.do()
    doubtful = scene.clock.now + FENCE * conf().LEASE
    assert not scene.identity.is_doubtful(doubtful)
    assert scene.identity.is_doubtful(doubtful + 0.01)


def test_with_a_lock_it_is_doubtful_before_two_heartbeats_are_missed(
    scene: SimpleNamespace,
) -> None:
    scene.identity.register()
    scene.completer.do()
    scene.identity.shorten_fence()
    doubtful = scene.clock.now + LOCK_FENCE * conf().HEARTBEAT
    assert scene.identity.doubtful_at == doubtful
    assert not scene.identity.is_doubtful(doubtful)
    assert scene.identity.is_doubtful(doubtful + 0.01)
    # Whoever finds the lock gone waits for longer than that, and a beat may be late.
    assert 1 < LOCK_FENCE < LOCK_GRACE - 0.3


def test_a_new_identity_has_no_lock_yet(scene: SimpleNamespace) -> None:
    scene.identity.register()
    scene.completer.do()
    scene.identity.shorten_fence()
    scene.identity.register()
    scene.completer.do()
    assert scene.identity.doubtful_at == scene.clock.now + FENCE * conf().LEASE


@override_settings(DJANGO_JOBS={"LEASE": 4.0, "HEARTBEAT": 2.0})
def test_a_lock_never_makes_the_fence_longer(scene: SimpleNamespace) -> None:
    scene.identity.register()
    scene.identity.shorten_fence()
    assert scene.identity.fence == FENCE * 4.0


def test_where_an_own_task_may_lock_all_out_only_a_pause_is_a_reason_to_doubt(
    scene: SimpleNamespace,
) -> None:
    scene.store.has_single_writer = True
    scene.identity.register()
    scene.completer.do()
    now, step = scene.clock.now, FENCE * conf().LEASE
    looks = [scene.identity.is_doubtful(now + 0.9 * step * n) for n in range(5)]
    assert looks == [False] * 5
    assert scene.identity.is_doubtful(now + 5 * step)


@pytest.mark.parametrize(
    ("looked", "now", "costly"),
    [
        (1, 41, 40.0),  # nobody looked for so long
        (18, 22, 4.0),  # a short one, without which it would do
        (19.5, 20.5, 0.0),  # the database was away: looks come every second
        (25, 30, 0.0),  # paused as well, but it was too late already
    ],
)
def test_a_pause_is_told_when_it_cost_the_lease(
    scene: SimpleNamespace, looked: float, now: float, costly: float
) -> None:
    scene.identity.register()
    scene.completer.do()
    begin = scene.identity.renewed_at
    for moment in (looked - 1, looked):
        scene.identity.is_doubtful(begin + moment)
    # Before the loop looks, as when the database says so first, and after it.
    assert scene.identity.costly_pause(begin + now) == costly
    scene.identity.is_doubtful(begin + now)
    assert scene.identity.costly_pause(begin + now) == costly


def test_a_worker_without_a_row_has_no_lease_to_doubt(scene: SimpleNamespace) -> None:
    for _ in range(2):
        scene.identity.register()
        assert not scene.identity.is_doubtful(scene.clock.now + 1e6)
        scene.completer.do()


def test_a_renewal_counts_from_when_it_was_asked_for(scene: SimpleNamespace) -> None:
    scene.identity.register()
    scene.completer.do()
    asked = scene.clock.now + 5
    scene.clock.now += 100
    assert scene.identity.renewed(scene.identity.worker.id, asked, True)
    assert not scene.identity.is_doubtful(asked + FENCE * conf().LEASE)
    assert scene.identity.is_doubtful(asked + FENCE * conf().LEASE + 0.01)


def test_a_registration_counts_from_when_it_was_asked_for(
    scene: SimpleNamespace,
) -> None:
    scene.identity.register()
    asked = scene.clock.now
    job = scene.completer.work()
    scene.clock.now += 100
    scene.completer.finish(job)
    assert scene.identity.is_doubtful(asked + FENCE * conf().LEASE + 0.01)


def test_a_lost_lease_is_told(scene: SimpleNamespace) -> None:
    scene.identity.register()
    scene.completer.do()
    worker = scene.identity.worker
    assert not scene.identity.renewed(worker.id, scene.clock.now, False)


def test_answers_about_an_earlier_identity_are_ignored(scene: SimpleNamespace) -> None:
    scene.identity.register()
    scene.completer.do()
    old = scene.identity.worker.id
    scene.identity.register()
    scene.completer.do()
    assert scene.identity.renewed(old, scene.clock.now, False)
    scene.identity.renewed(old, scene.clock.now + 1e6, True)
    assert scene.identity.is_doubtful(scene.clock.now + 1e6)
