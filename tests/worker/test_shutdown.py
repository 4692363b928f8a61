"""The stages of the graceful stop."""

from __future__ import annotations

import selectors
from collections.abc import Iterator

import pytest

from django_jobs.records import Outcome
from django_jobs.states import Verdict
from django_jobs.worker import processes
from django_jobs.worker import shutdown as module
from django_jobs.worker.completer import Job
from django_jobs.worker.crew import Crew
from django_jobs.worker.dispatcher import Dispatcher
from django_jobs.worker.exchange import LINGER, Exchange
from django_jobs.worker.options import WorkerOptions
from django_jobs.worker.shutdown import Shutdown, Stage
from tests.worker.parts import (
    Clock,
    FakeChild,
    FakeStore,
    HandCompleter,
    claimed,
    outcome,
    pool_of,
)

DRAIN = 25.0


class Scene:
    """A worker that stops, with one child."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.store = FakeStore()
        self.completer = HandCompleter(self.store)
        self.child = FakeChild()
        self.pool = pool_of(self.child)
        self.dispatcher = Dispatcher(self.pool)
        self.selector = selectors.DefaultSelector()
        self.exchange = Exchange(
            self.completer,
            self.dispatcher,
            WorkerOptions(database="default"),
            set,
            lambda: 200,
        )
        self.exchange.worker_id = "me"
        self.exchange.is_claiming = True
        self.crew = Crew(self.pool, self.dispatcher, self.selector, self.exchange.add)
        self.shutdown = Shutdown(
            self.crew, self.dispatcher, self.exchange, self.completer, DRAIN
        )

    def give(self, *names: str) -> list[str]:
        tasks = [claimed(name=name) for name in names]
        self.dispatcher.take(tasks, 0)
        self.dispatcher.dispatch(0)
        return [task.id for task in tasks]

    def advance(self, seconds: float = 0.0) -> Stage:
        """Let time pass, write what there is; return the stage after that."""
        self.clock.now += seconds
        self.shutdown.advance(self.clock.now)
        return self.shutdown.stage

    def write(self) -> None:
        self.clock.now += 2 * LINGER
        self.exchange.turn(self.clock.now)
        self.completer.do_all()

    def leave(self) -> None:
        """Have the child finish what it runs."""
        for lane in self.child.lanes.values():
            lane.take_all()

    def posted(self) -> list[str]:
        return [message[0] for message in self.child.channel.posted]  # type: ignore[attr-defined]


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    clock = Clock()
    for name in ("shutdown", "exchange", "promotion", "reconciling", "crew"):
        monkeypatch.setattr(f"django_jobs.worker.{name}.time", clock)
    monkeypatch.setattr(processes, "kill_with_group", lambda pid: None)
    made = Scene(clock)
    yield made
    made.selector.close()


def test_a_stop_ends_claiming_and_replacing_children(scene: Scene) -> None:
    assert not scene.shutdown.is_wanted
    scene.shutdown.request("asked to")
    assert scene.shutdown.is_wanted
    assert (scene.exchange.is_claiming, scene.pool.missing()) == (False, 0)


def test_an_idle_worker_goes_through_at_once(scene: Scene) -> None:
    scene.shutdown.request("asked to")
    stages = [scene.advance(), scene.advance()]
    scene.completer.do_all()
    assert stages == [Stage.FLUSHING, Stage.SIGNING_OFF]
    assert (scene.shutdown.stage, scene.store.signed_off) == (Stage.OVER, ["me"])


def test_the_stages_follow_each_other_when_their_time_is_over(scene: Scene) -> None:
    scene.give("never.seen")
    scene.shutdown.request("asked to")
    times = (DRAIN, module.INTERRUPT_SECONDS, module.KILL_SECONDS)
    stages = []
    for seconds in times:
        scene.advance(seconds - 0.1)
        stages += [scene.shutdown.stage, scene.advance(0.1)]
    assert stages == [
        *(Stage.DRAINING, Stage.INTERRUPTING),
        *(Stage.INTERRUPTING, Stage.KILLING),
        *(Stage.KILLING, Stage.FLUSHING),
    ]
    assert scene.posted() == ["run", "interrupt"]
    assert scene.child.killed_for == ("the worker stops", "")


def test_each_further_request_skips_ahead(scene: Scene) -> None:
    scene.give("never.seen")
    stages = []
    for _ in range(5):
        scene.shutdown.request("asked to")
        stages.append(scene.shutdown.stage)
    assert stages[:3] == [Stage.DRAINING, Stage.INTERRUPTING, Stage.KILLING]
    assert stages[3:] == [Stage.KILLING] * 2


def test_the_log_says_what_is_awaited_and_how_to_have_it_sooner(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "django_jobs")
    scene.give("never.seen")
    for _ in range(3):
        scene.shutdown.request("SIGINT")
    awaited = "running=1 awaited=never.seen"
    assert caplog.messages == [
        f"event=stopping reason=SIGINT {awaited} seconds=25.0 "
        'hint="a further Ctrl-C or SIGTERM interrupts them"',
        f"event=interrupting {awaited} seconds=3.0 "
        'hint="a further Ctrl-C or SIGTERM kills them"',
        f"event=killing {awaited} seconds=5.0",
    ]


def test_a_stop_that_waits_for_nothing_is_one_short_line(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "django_jobs")
    scene.shutdown.request("done")
    scene.advance()
    scene.advance()
    assert caplog.messages == ["event=stopping reason=done"]


def test_many_awaited_tasks_are_told_in_short() -> None:
    names = ["b", *"aaa", *"cdefg"]
    assert module._in_short(names) == ["b", "a (3)", "c", "d", "e", "..."]


def test_a_running_task_that_ends_ends_the_waiting(scene: Scene) -> None:
    scene.give("never.seen")
    scene.shutdown.request("asked to")
    assert scene.advance(1) is Stage.DRAINING
    scene.leave()
    assert scene.advance() is Stage.FLUSHING


def test_what_was_not_sent_is_given_back(scene: Scene) -> None:
    _, unsent = scene.give("never.seen", "never.seen")
    scene.shutdown.request("asked to")
    scene.advance()
    scene.write()
    assert scene.store.written() == [Outcome(unsent, 1, Verdict.RELEASED)]


def test_what_was_sent_and_not_started_is_asked_back(scene: Scene) -> None:
    name = claimed().name
    scene.dispatcher.learn(name, False, 0.001)
    scene.give(name, name)
    scene.shutdown.request("asked to")
    assert scene.posted() == ["run", "recall"]


def test_it_signs_off_only_when_every_outcome_is_written(scene: Scene) -> None:
    scene.exchange.add(outcome(claimed()))
    scene.shutdown.request("asked to")
    assert [scene.advance(), scene.advance()] == [Stage.FLUSHING] * 2
    scene.write()
    assert scene.advance() is Stage.SIGNING_OFF
    assert scene.store.signed_off == []


def test_a_worker_that_was_never_registered_has_nothing_to_sign_off(
    scene: Scene,
) -> None:
    scene.exchange.worker_id = ""
    scene.shutdown.request("asked to")
    scene.advance()
    assert scene.advance() is Stage.OVER
    assert scene.completer.jobs == []


def test_a_registration_under_way_is_not_waited_for_as_long_as_outcomes(
    scene: Scene,
) -> None:
    scene.exchange.worker_id = ""
    scene.completer.submit(Job("register", lambda store: None, lambda answer: None))
    scene.shutdown.request("asked to")
    scene.advance()
    assert scene.advance(module.REGISTER_SECONDS - 0.1) is Stage.FLUSHING
    assert scene.advance(0.1) is Stage.OVER


def test_outcomes_that_cannot_be_written_do_not_hold_the_worker_for_ever(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    task = claimed()
    scene.exchange.add(outcome(task))
    scene.shutdown.request("asked to")
    scene.advance()
    scene.exchange.turn(scene.clock.now + 2 * LINGER)
    assert scene.advance(module.FLUSH_SECONDS - 0.1) is Stage.FLUSHING
    assert scene.advance(0.1) is Stage.OVER
    assert f"event=outcomes_unwritten tasks=1 ids={task.id} " in caplog.text


def test_a_database_that_is_known_to_be_away_is_tried_for_three_seconds(
    scene: Scene,
) -> None:
    scene.completer.outage.is_on = True
    scene.exchange.add(outcome(claimed()))
    scene.shutdown.request("asked to")
    scene.advance()
    scene.exchange.turn(scene.clock.now + 2 * LINGER)
    assert scene.advance(2.9) is Stage.FLUSHING
    assert scene.advance(0.1) is Stage.OVER


def test_a_database_that_is_away_does_not_hold_the_sign_off_for_ever(
    scene: Scene,
) -> None:
    scene.shutdown.request("asked to")
    scene.advance()
    assert scene.advance() is Stage.SIGNING_OFF
    assert scene.advance(module.FLUSH_SECONDS - 0.1) is Stage.SIGNING_OFF
    assert scene.advance(0.1) is Stage.OVER
