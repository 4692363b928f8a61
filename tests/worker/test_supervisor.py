"""What the parent's loop puts together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.test import override_settings

from django_jobs.worker import processes
from django_jobs.worker.options import WorkerOptions
from django_jobs.worker.shutdown import Stage
from django_jobs.worker.supervisor import MOST_FAILURES, Supervisor
from tests.worker.parts import FakeChild, FakeStore, HandCompleter, claimed

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
        supervisor.completer = supervisor.exchange.completer = completer
        child = FakeChild()
        supervisor.pool.children.append(child)
        supervisor.exchange.is_claiming = True
        return supervisor, child

    yield build
    for supervisor in made:
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


def test_after_a_lost_lease_nothing_of_it_is_left(make: Make) -> None:
    supervisor, child = make()
    supervisor.dispatcher.take([claimed(), claimed()], now=0)
    supervisor.dispatcher.dispatch(now=0)
    supervisor._start_anew("the lease was over")
    assert supervisor._held_ids() == set()
    assert child.killed_for == ("the lease is over", "")
    assert not supervisor.exchange.is_claiming


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
