"""What the parent's loop puts together."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
from django.db import OperationalError
from django.test import override_settings

from django_jobs.states import Verdict
from django_jobs.worker import processes
from django_jobs.worker.deaths import LEASE_LOST
from django_jobs.worker.options import WorkerOptions
from django_jobs.worker.shutdown import Stage
from django_jobs.worker.supervisor import MOST_FAILURES, Supervisor
from tests.worker.parts import FakeChild, FakeStore, HandCompleter, claimed, outcome

Make = Callable[..., tuple[Supervisor, FakeChild]]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Make a supervisor that is not run, with a child and without threads."""
    made: list[Supervisor] = []
    monkeypatch.setattr(processes, "kill_with_group", lambda pid: None)

    def build(**options: Any) -> tuple[Supervisor, FakeChild]:
        supervisor = Supervisor(
            WorkerOptions(database="default", processes=1, **options)
        )
        made.append(supervisor)
        completer = HandCompleter(FakeStore())
        exchange = supervisor.exchange
        parts = (supervisor, exchange, exchange._promotion, exchange._reconciling)
        for part in parts:
            part.completer = completer
        child = FakeChild()
        supervisor.pool.children.append(child)
        supervisor.exchange.is_claiming = True
        return supervisor, child

    yield build
    for supervisor in made:
        supervisor.guard.stop()
        supervisor.selector.close()
        supervisor.mailbox.close()


def posted(child: FakeChild) -> list[str]:
    return [message[0] for message in child.channel.posted]  # type: ignore[attr-defined]


def test_claimed_tasks_are_sent_in_the_same_turn(make: Make) -> None:
    supervisor, child = make()
    supervisor.dispatcher.take([claimed()], now=0)
    supervisor._turn(now=0)
    assert posted(child) == ["run"]


def test_what_comes_back_during_a_stop_is_not_sent_again(make: Make) -> None:
    supervisor, child = make()
    supervisor.shutdown.request("asked to")
    supervisor.dispatcher.take_back([claimed()], now=0)
    supervisor._turn(now=0)
    assert posted(child) == []
    assert len(supervisor.dispatcher) == 0


def test_a_worker_claims_no_more_than_it_may_still_run(make: Make) -> None:
    supervisor, _ = make(max_tasks=10)
    supervisor.crew.finished = 4
    supervisor.dispatcher.take([claimed(), claimed(), claimed()], now=0)
    supervisor.dispatcher.dispatch(now=0)
    assert supervisor._allowance() == 3


def test_a_worker_stops_after_its_last_task(make: Make) -> None:
    supervisor, _ = make(max_tasks=10)
    supervisor.crew.finished = 9
    supervisor._turn(now=0)
    assert not supervisor.shutdown.is_wanted
    supervisor.crew.finished = 10
    supervisor._turn(now=0)
    assert supervisor.shutdown.is_wanted


def test_a_worker_that_cannot_start_children_stops_as_failed(make: Make) -> None:
    supervisor, _ = make()
    supervisor.pool.failures = MOST_FAILURES - 1
    supervisor._turn(now=0)
    assert (supervisor.shutdown.is_wanted, supervisor.has_failed) == (False, False)
    supervisor.pool.failures = MOST_FAILURES
    supervisor._turn(now=0)
    assert (supervisor.shutdown.is_wanted, supervisor.has_failed) == (True, True)


def test_a_worker_that_had_children_waits_for_room(make: Make) -> None:
    supervisor, _ = make()
    supervisor.pool.has_started = True
    supervisor.pool.failures = MOST_FAILURES
    supervisor._turn(now=0)
    assert (supervisor.shutdown.is_wanted, supervisor.has_failed) == (False, False)


def test_after_a_lost_lease_nothing_of_it_is_left(make: Make) -> None:
    supervisor, child = make()
    supervisor.dispatcher.take([claimed(), claimed()], now=0)
    supervisor.dispatcher.dispatch(now=0)
    supervisor._start_anew("the lease was over")
    assert len(supervisor.dispatcher) == 0
    assert child.killed_for == (LEASE_LOST, "")
    assert not supervisor.exchange.is_claiming


def test_the_log_says_whether_a_lease_was_lost_by_a_pause(
    make: Make, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor, _ = make()
    supervisor._start_anew("the lease was over")
    monkeypatch.setattr(supervisor.identity, "costly_pause", lambda now: 43.21)
    supervisor._start_anew("the lease was over")
    assert caplog.messages == [
        'event=lease_lost reason="the lease was over"',
        'event=lease_lost reason="this worker was paused" seconds=43.2',
    ]


def test_what_it_had_is_written_as_the_identity_that_had_it(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor, child = make()
    supervisor.exchange.worker_id = child.worker_id = "former"
    ran, buffered = claimed(), claimed()
    supervisor.dispatcher.take([ran, buffered], now=0)
    supervisor.dispatcher.dispatch(now=0)
    supervisor._start_anew("the lease was over")
    supervisor.heartbeat.worker_id = "former"
    supervisor._registered(supervisor.identity.worker)
    monkeypatch.setattr(child, "last_messages", lambda: iter(()))
    supervisor.crew._bury(child)
    store = cast(Any, supervisor.completer).store
    store.register = lambda worker, lease: None
    cast(Any, supervisor.completer).do_all()
    verdicts = {each.id: each.verdict for each in store.written()}
    assert verdicts == {ran.id: Verdict.CRASHED, buffered.id: Verdict.RELEASED}
    assert {worker for worker, told, _ in store.cycles if told} == {"former"}


@pytest.mark.parametrize("noted", [True, False])
def test_the_row_tells_of_a_lock_when_the_worker_gives_up_sooner(
    make: Make, noted: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "django_jobs")
    supervisor, _ = make()
    completer = cast(Any, supervisor.completer)
    fences: list[float] = []

    def note_lock(worker_id: str, grace: float) -> bool:
        fences.append(supervisor.identity.fence)
        assert (worker_id, grace) == (supervisor.identity.worker.id, 10.0)
        return noted

    completer.store.note_lock = note_lock
    for lock in (("somebody else", 1), (supervisor.identity.worker.id, 1)):
        supervisor.listener.lock = lock
        supervisor._note_lock()
        supervisor._note_lock()
    completer.do_all()
    assert fences == [8.0]
    assert (caplog.messages == ["event=fast_rescue_on"]) is noted


def test_a_note_that_failed_is_written_again(make: Make) -> None:
    supervisor, _ = make()
    completer = cast(Any, supervisor.completer)
    supervisor.listener.lock = (supervisor.identity.worker.id, 1)
    supervisor._note_lock()
    (job,) = completer.jobs
    job.error = OperationalError()
    completer.finish(job)
    supervisor._note_lock()
    assert completer.names() == ["note lock"] * 2


def test_the_loop_wakes_when_the_lease_becomes_doubtful_or_a_chore_is_due(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor, _ = make()
    monkeypatch.setattr(supervisor.exchange, "turn", lambda now: None)
    now = 1000.0
    for chore, due in zip(supervisor.chores, (now + 0.7, now - 1), strict=True):
        chore.due = due
    supervisor.identity.renewed_at = now
    for fence, expected in ((0.9, 0.7), (0.4, 0.4), (-1.0, 0.7)):
        supervisor.identity.fence = fence
        supervisor._tick(now)
        assert supervisor._next_tick == pytest.approx(now + expected)


def test_a_chore_that_is_due_goes_ahead_of_the_next_exchange(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor, _ = make()
    completer = cast(Any, supervisor.completer)
    monkeypatch.setattr(HandCompleter, "is_free", property(lambda self: not self.jobs))
    supervisor.identity.is_registered = True
    supervisor.exchange.is_claiming = False
    task = claimed()
    supervisor._next_tick = float("inf")  # no tick comes to its help
    for chore in supervisor.chores:
        chore.due = 20.0
    for now, expected in ((10.0, "exchange"), (20.0, "rescue"), (20.1, "prune")):
        supervisor.exchange.add(outcome(task))
        supervisor.exchange._oldest_outcome = 0.0
        supervisor._turn(now)
        assert completer.names() == [expected]
        completer.jobs.clear()


def test_a_worker_that_has_signed_off_misses_no_lease(make: Make) -> None:
    supervisor, child = make()
    supervisor.identity.is_registered = True
    supervisor.shutdown.stage = Stage.SIGNING_OFF
    supervisor._renewed(supervisor.identity.worker.id, asked=0, is_ours=False)
    assert child.killed_for is None
    supervisor.shutdown.stage = Stage.FLUSHING
    supervisor._renewed(supervisor.identity.worker.id, asked=0, is_ours=False)
    assert child.killed_for == ("the lease is over", "")


def test_a_queue_that_is_not_declared_is_told_at_the_start(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with override_settings(DJANGO_JOBS={"QUEUES": ["default", "mail"]}):
        supervisor, _ = make(queues=("mial",))
        supervisor.shutdown.stage = Stage.OVER
        for part, method in (
            (supervisor.store, "set_deadlines"),
            (supervisor.completer, "start"),
            (supervisor.identity, "register"),
            (supervisor.listener, "start"),
            (supervisor, "_close"),
        ):
            monkeypatch.setattr(part, method, lambda: None)
        supervisor.run()
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage().startswith("event=queue_not_declared message=")
    assert "Did you mean 'mail'?" in record.getMessage()
