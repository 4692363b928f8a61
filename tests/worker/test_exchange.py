"""When the worker speaks to the database, and what it says."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, cast

import pytest

from django_jobs.conf import conf
from django_jobs.records import ClaimedTask, Outcome
from django_jobs.states import Verdict
from django_jobs.worker import exchange as module
from django_jobs.worker import promotion as due_tasks
from django_jobs.worker import reconciling, strays
from django_jobs.worker.dispatcher import MOST_CLAIMED, Dispatcher
from django_jobs.worker.exchange import Exchange
from django_jobs.worker.options import WorkerOptions
from django_jobs.worker.unwritten import LOCKED_WAIT
from tests.worker.parts import (
    Clock,
    FakeChild,
    FakeStore,
    HandCompleter,
    claimed,
    ids,
    outcome,
    pool_of,
)


class Scene:
    """An exchange whose database and clock are moved by hand."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.store = FakeStore()
        self.completer = HandCompleter(self.store, clock)
        self.child = FakeChild(threads=4, coroutines=0)
        self.dispatcher = Dispatcher(pool_of(self.child))
        self.allowance = MOST_CLAIMED
        self.held: set[str] = set()
        self.exchange = Exchange(
            self.completer,
            self.dispatcher,
            WorkerOptions(database="default"),
            lambda: set(self.held),
            lambda: self.allowance,
        )
        self.exchange.worker_id = "me"

    def turn(self, seconds: float = 0.0, *, promote: bool = True) -> list[str]:
        """Let time pass, take a turn; return the names of the new jobs.

        Looks for due tasks are done at once, unless they are what is looked at.
        """
        self.clock.now += seconds + 1e-6  # time never stands still
        before = len(self.completer.jobs)
        self.exchange.turn(self.clock.now)
        names = self.completer.names()[before:]
        if promote and "promote" in names:
            self.completer.do("promote")
            names.remove("promote")
        return names

    def settle(self) -> None:
        """Take turns until there is nothing to do now."""
        while self.turn():
            self.completer.do_all()

    def fill(self) -> None:
        """Give every slot a long task: nothing can be claimed."""
        tasks = [claimed(name="never.seen") for _ in range(4)]
        self.dispatcher.take(tasks, self.clock.now)
        self.dispatcher.dispatch(self.clock.now)

    def looks(self, seconds: float, step: float = 0.001) -> list[float]:
        """Return after how many seconds each claim came, all of them in vain."""
        begin, found = self.clock.now, []
        while self.clock.now < begin + seconds:
            if "exchange" in self.turn(step):
                found.append(round(self.clock.now - begin, 3))
            self.completer.do_all()
        return found


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    clock = Clock()
    for part in (module, due_tasks, reconciling):
        monkeypatch.setattr(part, "time", clock)
    return Scene(clock)


@pytest.fixture
def claiming(scene: Scene) -> Scene:
    """The same after its start, with an empty queue."""
    scene.exchange.is_claiming = True
    scene.settle()
    scene.store.cycles.clear()
    return scene


# -- lingering and batches ---------------------------------------------------------


def test_a_worker_that_is_not_registered_asks_nothing(scene: Scene) -> None:
    assert scene.turn(10) == []
    assert scene.exchange.is_settled


def test_an_outcome_waits_a_little_for_others(claiming: Scene) -> None:
    claiming.fill()
    tasks = [claimed(), claimed()]
    claiming.exchange.add(outcome(tasks[0]))
    assert claiming.turn() == []
    claiming.exchange.add(outcome(tasks[1]))
    assert claiming.turn(module.LINGER) == ["exchange"]
    claiming.completer.do()
    assert ids(claiming.store.written()) == ids(tasks)


def test_many_outcomes_do_not_wait(claiming: Scene) -> None:
    claiming.fill()
    for _ in range(module.ENOUGH - 1):
        claiming.exchange.add(outcome(claimed()))
    assert claiming.turn() == []
    claiming.exchange.add(outcome(claimed()))
    assert claiming.turn() == ["exchange"]


def test_a_child_without_work_is_a_reason_not_to_wait(claiming: Scene) -> None:
    claiming.exchange.wake()
    assert claiming.turn() == ["exchange"]


def test_while_children_are_busy_a_claim_waits_for_outcomes(claiming: Scene) -> None:
    claiming.dispatcher.take([claimed()], claiming.clock.now)
    claiming.dispatcher.dispatch(claiming.clock.now)
    claiming.exchange.wake()
    assert claiming.turn() == []
    claiming.exchange.add(outcome(claimed()))
    assert claiming.turn(module.LINGER) == ["exchange"]
    claiming.completer.do()
    assert claiming.store.demands() == [3]


def test_no_more_is_under_way_than_the_database_takes(claiming: Scene) -> None:
    claiming.fill()
    for _ in range(3):
        for _ in range(module.ENOUGH):
            claiming.exchange.add(outcome(claimed()))
        claiming.turn()
    assert claiming.completer.names() == ["exchange", "exchange"]
    claiming.completer.do_all()
    assert claiming.turn() == ["exchange"]


def test_what_is_asked_for_already_is_not_asked_for_again(claiming: Scene) -> None:
    claiming.exchange.wake()
    claiming.turn()
    claiming.exchange.add(outcome(claimed()))
    claiming.turn(module.LINGER)
    claiming.completer.do_all()
    assert claiming.store.demands() == [4]


def test_no_more_is_claimed_than_the_worker_may_still_run(claiming: Scene) -> None:
    claiming.allowance = 3
    claiming.exchange.wake()
    claiming.turn()
    claiming.completer.do()
    assert claiming.store.demands() == [3]


@pytest.mark.parametrize("allowance", [0, -5])
def test_a_worker_that_may_run_no_more_claims_nothing(
    claiming: Scene, allowance: int
) -> None:
    claiming.allowance = allowance
    claiming.exchange.wake()
    assert claiming.turn() == []


# -- appetite ----------------------------------------------------------------------


def test_an_idle_worker_looks_less_and_less_often(claiming: Scene) -> None:
    settings = conf()
    claiming.exchange.wake()
    claiming.turn()
    claiming.completer.do_all()
    looks = claiming.looks(2.0)
    pauses = [round(later - earlier, 3) for earlier, later in pairwise(looks)]
    assert pauses[:4] == sorted({*pauses[:4]})
    assert pauses[0] < settings.POLL_SLOWEST
    assert pauses[-1] == pytest.approx(settings.POLL_SLOWEST, abs=0.002)


def test_a_worker_that_hears_notifications_looks_less_often(claiming: Scene) -> None:
    claiming.exchange.has_notifications = True
    claiming.looks(10)
    looks = claiming.looks(5)
    assert len(looks) == pytest.approx(5 / conf().POLL, abs=1)


def test_a_wake_up_ends_a_pause_at_once(claiming: Scene) -> None:
    claiming.exchange.has_notifications = True
    claiming.looks(10)
    claiming.exchange.wake()
    assert claiming.turn() == ["exchange"]


def test_a_wake_up_during_a_claim_is_not_lost(claiming: Scene) -> None:
    claiming.exchange.wake()
    claiming.turn(0.001)
    job = claiming.completer.work("exchange")
    claiming.clock.now += 0.001
    claiming.exchange.wake()
    claiming.completer.finish(job)
    assert claiming.turn() == ["exchange"]


def test_a_wake_up_is_followed_by_a_second_look(claiming: Scene) -> None:
    # A producer sends no second notification within a few milliseconds.
    claiming.exchange.has_notifications = True
    claiming.looks(10)
    claiming.exchange.wake()
    looks = claiming.looks(0.2)
    assert looks[0] == 0.001
    assert looks[1] == pytest.approx(module.SECOND_LOOK, abs=0.0015)
    assert looks[2] > module.SECOND_LOOK + conf().POLL_FASTEST / 2


def test_the_second_look_comes_also_when_the_first_found_something(
    claiming: Scene,
) -> None:
    claiming.exchange.has_notifications = True
    claiming.looks(10)
    claiming.store.queue = [claimed(name="sample.send")]
    claiming.exchange.wake()
    claiming.turn(0.001)
    claiming.completer.do_all()
    claiming.dispatcher.take_all()
    looks = claiming.looks(0.012)
    assert looks[0] == 0.001
    assert looks[1] + 0.001 == pytest.approx(module.SECOND_LOOK, abs=0.0015)


def test_while_tasks_are_found_it_goes_on_without_a_pause(claiming: Scene) -> None:
    claiming.store.queue = [claimed() for _ in range(9)]
    claiming.exchange.wake()
    for _ in range(3):
        claiming.turn()
        claiming.completer.do_all()
        claiming.dispatcher.take_all()
    assert claiming.store.demands() == [4, 4, 4]
    assert claiming.store.queue == []


def test_a_worker_is_idle_when_it_looked_in_vain(claiming: Scene) -> None:
    assert claiming.exchange.is_idle
    claiming.exchange.wake()
    assert not claiming.exchange.is_idle
    claiming.settle()
    assert claiming.exchange.is_idle


# -- what comes in -----------------------------------------------------------------


def claim_of(scene: Scene, *tasks: ClaimedTask) -> list[Outcome]:
    """Have the worker claim these; return what it writes about them next."""
    scene.store.queue = list(tasks)
    scene.exchange.wake()
    scene.turn()
    scene.completer.do()
    scene.store.cycles.clear()
    scene.turn(module.LINGER)
    scene.completer.do_all()
    return scene.store.written()


def test_claimed_tasks_go_to_the_dispatcher(claiming: Scene) -> None:
    tasks = [claimed(), claimed()]
    assert claim_of(claiming, *tasks) == []
    assert claiming.dispatcher.take_all() == tasks


def test_an_expired_task_is_not_run(claiming: Scene) -> None:
    task = claimed(is_expired=True)
    (told,) = claim_of(claiming, task)
    assert (told.id, told.verdict) == (task.id, Verdict.EXPIRED)
    assert told.retention == conf().RESULT_RETENTION
    assert len(claiming.dispatcher) == 0


def test_an_unknown_task_goes_back_for_a_worker_that_knows_it(claiming: Scene) -> None:
    task = claimed(name="of.the.next.release")
    (told,) = claim_of(claiming, task)
    assert (told.id, told.verdict) == (task.id, Verdict.UNKNOWN)
    assert 0.5 <= told.delay / strays.UNKNOWN_WAIT <= 1.5
    assert len(claiming.dispatcher) == 0


def test_claims_that_come_after_the_stop_are_released(claiming: Scene) -> None:
    claiming.store.queue = [task := claimed(lease=3)]
    claiming.exchange.wake()
    claiming.turn()
    job = claiming.completer.work()
    claiming.exchange.is_claiming = False
    claiming.completer.finish(job)
    assert not claiming.exchange.is_settled
    claiming.completer.do()
    assert claiming.store.written() == [Outcome(task.id, 3, Verdict.RELEASED)]
    assert len(claiming.dispatcher) == 0


def test_claims_of_an_earlier_identity_are_released_as_that(claiming: Scene) -> None:
    claiming.store.queue = [task := claimed()]
    claiming.exchange.wake()
    claiming.turn()
    job = claiming.completer.work()
    claiming.exchange.become("me anew")
    claiming.completer.finish(job)
    claiming.completer.do_all()
    assert claiming.store.written() == [Outcome(task.id, 1, Verdict.RELEASED)]
    assert {cycle[0] for cycle in claiming.store.cycles} == {"me"}


@pytest.mark.parametrize("change", ["stop", "identity"])
def test_a_claim_that_is_tried_again_is_not_made_when_it_is_not_wanted_any_more(
    claiming: Scene, change: str
) -> None:
    claiming.store.queue = [claimed()]
    claiming.exchange.wake()
    claiming.turn()
    if change == "stop":
        claiming.exchange.is_claiming = False
    else:
        claiming.exchange.become("me anew")
    claiming.completer.do("exchange", failures=3)
    assert claiming.store.demands() == []
    assert len(claiming.store.queue) == 1


def test_what_waits_to_be_written_is_of_the_identity_that_ran_it(
    claiming: Scene,
) -> None:
    claiming.exchange.add(before := outcome(claimed()))
    claiming.exchange.become("me anew")
    claiming.exchange.add(late := outcome(claimed()), "me")
    claiming.exchange.add(after := outcome(claimed()), "me anew")
    claiming.completer.do_all()
    claiming.turn(module.LINGER)
    claiming.completer.do_all()
    written = {worker: told for worker, told, _ in claiming.store.cycles if told}
    assert claiming.store.written() == [before, late, after]
    assert written["me anew"] == [after]


def test_lost_claims_of_a_former_identity_are_given_back_as_that(
    claiming: Scene,
) -> None:
    claiming.exchange.wake()
    claiming.turn()
    claiming.exchange.become("me anew")
    claiming.store.mine = [(task_id := claimed().id, 7)]
    claiming.completer.do("exchange", failures=1)
    claiming.turn()
    claiming.completer.do_all()
    back = [Outcome(task_id, 7, Verdict.RELEASED)]
    assert ("me", back, None) in claiming.store.cycles


def test_late_claims_leave_the_room_free_for_others(claiming: Scene) -> None:
    claiming.exchange.wake()
    claiming.turn()
    job = claiming.completer.work()
    claiming.exchange.is_claiming = False
    claiming.completer.finish(job)
    claiming.completer.do_all()
    claiming.exchange.is_claiming = True
    claiming.exchange.wake()
    claiming.settle()
    assert claiming.store.demands() == [4, 4]


def test_late_outcomes_of_a_former_identity_are_said_when_they_are_rejected(
    claiming: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    claiming.exchange.add(told := outcome(claimed()), "former")
    write = claiming.completer.work("write")
    write.answer = write.answer._replace(stale=[told.id])
    claiming.completer.finish(write)
    claiming.turn()
    claiming.completer.do("reconcile")
    assert caplog.messages == [f"event=stale_outcomes tasks={told.id}"]


def test_stale_outcomes_are_said(
    claiming: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    claiming.exchange.add(outcome(task := claimed()))
    claiming.turn(module.LINGER)
    job = claiming.completer.work()
    job.answer = job.answer._replace(stale=[task.id])
    claiming.completer.finish(job)
    assert f"event=stale_outcomes tasks={task.id}" in caplog.text


# -- due tasks ---------------------------------------------------------------------


@pytest.fixture
def listening(claiming: Scene) -> Scene:
    """The same with notifications, and long without anything to do."""
    claiming.exchange.has_notifications = True
    claiming.looks(10)
    return claiming


def retry(scene: Scene, delay: float) -> None:
    """Have a retry written."""
    told = outcome(claimed(), verdict=Verdict.RETRY, delay=delay)
    scene.exchange.add(told)
    assert "exchange" in scene.turn(module.LINGER)


def promotes(scene: Scene, seconds: float = 0.0) -> bool:
    return "promote" in scene.turn(seconds, promote=False)


def test_a_scheduled_task_is_promoted_at_its_time(listening: Scene) -> None:
    listening.store.due = [0.25]
    listening.exchange.wake()
    listening.settle()
    assert not promotes(listening, 0.24)
    assert listening.exchange.next_turn(0) == pytest.approx(listening.clock.now + 0.01)
    assert promotes(listening, 0.01)


def test_promoted_tasks_are_claimed_at_once(listening: Scene) -> None:
    assert promotes(listening, conf().POLL)
    promotion = listening.completer.jobs.pop(0)
    listening.completer.do_all()
    assert listening.turn() == []
    promotion.answer = (1, None)
    listening.completer.finish(promotion)
    assert listening.turn() == ["exchange"]


def test_a_retry_soon_is_not_slept_through(listening: Scene) -> None:
    retry(listening, 0.2)
    listening.completer.do_all()
    now = listening.clock.now
    assert listening.exchange.next_turn(now) < now + 0.21
    assert promotes(listening, 0.21)


def test_a_retry_written_while_tasks_are_promoted_is_not_slept_through(
    listening: Scene,
) -> None:
    listening.fill()
    assert promotes(listening, conf().POLL)
    promotion = listening.completer.work("promote")  # finds nothing that is due
    retry(listening, 0.05)
    listening.completer.do("exchange")
    listening.completer.finish(promotion)
    assert promotes(listening, 0.05)


def test_a_retry_whose_write_takes_long_is_not_slept_through(listening: Scene) -> None:
    listening.fill()
    listening.turn(conf().POLL)  # the usual look
    retry(listening, 0.05)
    listening.turn(0.1)
    assert not promotes(listening)
    listening.completer.do("exchange")
    assert promotes(listening)


def test_one_promotion_is_under_way_at_a_time(listening: Scene) -> None:
    assert promotes(listening, conf().POLL)
    listening.exchange.wake()
    assert not promotes(listening, 1.0)


def test_a_wake_up_while_tasks_are_promoted_is_not_lost(listening: Scene) -> None:
    assert promotes(listening, conf().POLL)
    promotion = listening.completer.work("promote")
    listening.clock.now += 0.001
    listening.exchange.wake()
    listening.completer.finish(promotion)
    assert promotes(listening, due_tasks.DUE_LOOK)


def test_many_wake_ups_are_no_reason_to_look_for_due_tasks_each_time(
    listening: Scene,
) -> None:
    looks = 0
    for _ in range(100):
        listening.exchange.wake()
        looks += promotes(listening, 0.001)
        listening.completer.do_all()
    assert 2 <= looks <= 1 + 0.1 / due_tasks.DUE_LOOK


def test_a_due_task_that_is_locked_is_no_reason_to_look_without_a_pause(
    listening: Scene,
) -> None:
    listening.fill()
    looks = 0
    for _ in range(100):
        listening.store.due = [0.0, 0.0]  # due, passed over, still due
        looks += promotes(listening, 0.01)
        listening.completer.do_all()
    assert looks == pytest.approx(1 / LOCKED_WAIT, abs=1)


def test_as_long_as_due_tasks_are_found_there_is_no_pause(listening: Scene) -> None:
    listening.store.promoted = 5000
    listening.clock.now += conf().POLL
    for _ in range(3):
        listening.store.due = [0.0, 0.0]
        assert promotes(listening)
        listening.completer.do_all()


def test_a_retry_written_under_a_former_identity_is_not_slept_through(
    listening: Scene,
) -> None:
    listening.turn(conf().POLL)  # the usual look
    told = outcome(claimed(), verdict=Verdict.RETRY, delay=0.2)
    listening.exchange.add(told, "former")
    listening.completer.do_all()
    assert not promotes(listening, 0.19)
    assert promotes(listening, 0.02)


# -- what others gave back -------------------------------------------------------------


def strays_ahead(scene: Scene, seconds: float = 3.0) -> None:
    """Have the worker know of a task that is due soon, whatever it may be."""
    scene.store.due = [seconds]
    assert promotes(scene, conf().POLL)
    scene.completer.do_all()


def test_a_task_that_others_do_not_know_is_adopted_and_claimed_at_once(
    listening: Scene,
) -> None:
    name = claimed().name
    listening.store.strays = [("default", name), ("default", "never.seen")]
    strays_ahead(listening)
    assert listening.turn() == ["adopt"]
    listening.completer.do("adopt")
    assert listening.store.strays == [("default", "never.seen")]
    assert "exchange" in listening.turn()


def test_who_knows_none_of_them_goes_on_waiting(listening: Scene) -> None:
    listening.store.strays = [("default", "never.seen")]
    strays_ahead(listening)
    assert listening.turn() == ["adopt"]
    listening.completer.do("adopt")
    assert listening.turn() == []
    assert listening.turn(strays.LOOK) == ["adopt"]


def test_a_worker_adopts_only_from_queues_that_it_serves() -> None:
    name = claimed().name
    store = FakeStore()
    store.strays = [("mail", name), ("video", name)]
    options = WorkerOptions(database="default", queues=("mail",))
    assert strays.Strays(options).adopt(cast(Any, store)) == 1
    assert store.strays == [("video", name)]


def test_nothing_is_adopted_without_room_for_it(listening: Scene) -> None:
    listening.fill()
    strays_ahead(listening)
    assert listening.turn() == []


def test_nobody_looks_for_strays_while_nothing_is_due_soon(listening: Scene) -> None:
    strays_ahead(listening, strays.LONGEST_WAIT + 1)
    assert listening.turn() == []


def looks_of(own: strays.Strays, begin: float, seconds: float) -> int:
    """Return how often a worker looks while some task is always due soon."""
    times = [begin + step / 10 for step in range(round(seconds * 10))]
    due = [now for now in times if own.is_due(now, now) and not own.looked(now)]
    return len(due)


def test_a_worker_that_is_not_new_looks_for_strays_rarely() -> None:
    own = strays.Strays(WorkerOptions(database="default"))
    later = 1000.0 + strays.NEW
    assert looks_of(own, 1000.0, strays.NEW) == strays.NEW / strays.LOOK
    assert looks_of(own, later, 600.0) <= 600.0 / strays.LATER_LOOK
    own.found(later + 600.0)
    assert looks_of(own, later + 601.0, 60.0) == 60.0 / strays.LOOK


@pytest.mark.parametrize("name", [claimed().name, "never.seen"])
def test_who_found_strays_looks_again_soon(
    listening: Scene, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(strays, "NEW", 0.0)
    listening.store.strays = [("default", name)]
    strays_ahead(listening)
    listening.turn()
    listening.completer.do("adopt")
    listening.settle()
    assert ("adopt" in listening.turn(strays.LOOK)) == (name != "never.seen")


# -- after a failure ---------------------------------------------------------------


def fail_once(scene: Scene) -> None:
    """Have an exchange succeed at its second try only."""
    scene.exchange.add(outcome(claimed()))
    scene.turn(module.LINGER)
    scene.completer.do("exchange", failures=1)
    scene.store.cycles.clear()


def reconcile(scene: Scene) -> list[Outcome]:
    """Look at once at what is ours; return what is given back."""
    assert "reconcile" in scene.turn()
    scene.completer.do("reconcile")
    return given_back(scene)


def given_back(scene: Scene) -> list[Outcome]:
    scene.store.cycles.clear()
    while "write" in scene.completer.names():
        scene.completer.do("write")
    return scene.store.written()


def test_after_a_failed_exchange_exactly_the_unknown_tasks_are_released(
    claiming: Scene,
) -> None:
    claiming.held = {"at a child"}
    fail_once(claiming)
    told = outcome(claimed())
    claiming.exchange.add(told)
    claiming.store.mine = [("at a child", 1), (told.id, 1), ("lost", 5), ("gone", 6)]
    assert reconcile(claiming) == [
        Outcome("lost", 5, Verdict.RELEASED),
        Outcome("gone", 6, Verdict.RELEASED),
    ]


def test_without_unknown_tasks_nothing_is_released(claiming: Scene) -> None:
    fail_once(claiming)
    assert reconcile(claiming) == []


@pytest.mark.parametrize("is_first", [True, False])
def test_what_is_claimed_meanwhile_is_not_given_back(
    claiming: Scene, is_first: bool
) -> None:
    fail_once(claiming)
    claiming.store.queue = [task := claimed()]
    claiming.exchange.wake()
    assert sorted(claiming.turn()) == ["exchange", "reconcile"]
    claim = claiming.completer.work("exchange")
    claiming.store.mine = [(task.id, task.lease), ("lost", 5)]
    if is_first:
        claiming.completer.finish(claim)
    claiming.completer.do("reconcile")
    if not is_first:
        # Whether the answer tells of it nobody knows until it came back.
        assert "write" not in claiming.completer.names()
        claiming.completer.finish(claim)
    assert given_back(claiming) == [Outcome("lost", 5, Verdict.RELEASED)]
    assert claiming.dispatcher.take_all() == [task]


def test_a_claim_that_begins_after_the_answer_is_not_waited_for(
    claiming: Scene,
) -> None:
    claiming.allowance = 2
    claiming.exchange.wake()
    claiming.turn()
    first = claiming.completer.jobs.pop()
    claiming.turn(reconciling.LONGEST_PAUSE)
    claiming.store.mine = [("lost", 5)]
    claiming.completer.do("reconcile")
    claiming.allowance = 4
    claiming.exchange.add(outcome(claimed()))
    assert "exchange" in claiming.turn(module.LINGER) + claiming.turn()
    first.answer = first.work(cast(Any, claiming.store))
    claiming.completer.finish(first)
    assert "write" in claiming.completer.names()


def test_what_had_just_been_written_is_not_given_back(claiming: Scene) -> None:
    fail_once(claiming)
    claiming.exchange.add(told := outcome(claimed()))
    claiming.turn(module.LINGER)
    claiming.store.mine = [(told.id, told.lease)]
    look = claiming.completer.work("reconcile")
    claiming.completer.do("exchange")
    claiming.completer.finish(look)
    assert given_back(claiming) == []


def looks_at_what_is_ours(scene: Scene, seconds: int) -> list[int]:
    """Return after how many seconds of this time it looked."""
    found = []
    for second in range(1, seconds + 1):
        if "reconcile" in scene.turn(1.0):
            found.append(second)
        scene.completer.do_all()
    return found


def test_a_claim_that_is_committed_late_is_found_soon_after_a_doubt(
    claiming: Scene,
) -> None:
    fail_once(claiming)
    looks = looks_at_what_is_ours(claiming, 200)
    assert looks == [1, 2, 4, 8, 16, 32, 64, 124, 184]


def test_now_and_again_it_looks_without_a_doubt(claiming: Scene) -> None:
    assert looks_at_what_is_ours(claiming, 130) == [60, 120]


def test_a_lost_claim_whose_row_is_locked_holds_up_nothing(
    claiming: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    fail_once(claiming)
    claiming.store.mine, claiming.store.locked = [("lost", 5)], {"lost"}
    told = Outcome("lost", 5, Verdict.RELEASED)
    assert reconcile(claiming) == [told]
    claiming.exchange.wake()
    assert claiming.turn() == ["exchange"]
    claiming.completer.do_all()
    claiming.store.locked.clear()
    assert "write" in claiming.turn(LOCKED_WAIT)
    assert given_back(claiming) == [told]
    assert claiming.exchange.unwritten == set()
    assert caplog.text.count("event=claims_reconciled tasks=1") == 1


def test_a_look_that_failed_is_taken_again_after_a_pause(
    claiming: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    claiming.exchange.write_as("former", [told := outcome(claimed())])
    write = claiming.completer.work("write")
    write.answer = write.answer._replace(stale=[told.id])
    claiming.completer.finish(write)
    claiming.turn()
    look = claiming.completer.jobs.pop()
    look.error = OSError()
    claiming.completer.finish(look)
    assert "reconcile" not in claiming.turn()
    assert "reconcile" in claiming.turn(reconciling.FIRST_PAUSE)
    claiming.completer.do("reconcile")
    assert f"event=stale_outcomes tasks={told.id}" in caplog.text


def test_an_exchange_that_went_well_needs_no_reconciliation(claiming: Scene) -> None:
    claiming.exchange.add(outcome(claimed()))
    claiming.turn(module.LINGER)
    claiming.completer.do_all()
    assert "reconcile" not in claiming.turn()


@pytest.mark.parametrize("is_doubtful", [True, False])
@pytest.mark.parametrize(
    ("is_alive", "said"),
    [(True, "INFO event=outcomes_reconciled"), (False, "WARNING event=stale_outcomes")],
)
def test_who_is_alive_has_written_itself_what_is_rejected_after_a_failure(
    claiming: Scene,
    caplog: pytest.LogCaptureFixture,
    is_alive: bool,
    said: str,
    is_doubtful: bool,
) -> None:
    # A deadlock loses no answer; but it may come when some were written one by one.
    caplog.set_level("INFO", "django_jobs")
    claiming.store.alive = {"me"} if is_alive else set()
    claiming.exchange.add(outcome(task := claimed()))
    claiming.turn(module.LINGER)
    job = claiming.completer.work(failures=1)
    job.is_doubtful = is_doubtful
    job.answer = job.answer._replace(stale=[task.id])
    claiming.completer.finish(job)
    assert caplog.messages == []
    claiming.turn()
    claiming.completer.do("reconcile")
    [record] = caplog.records
    told = f"{record.levelname} {record.getMessage()}"
    assert told == f"{said} tasks={task.id}"


def test_without_rejected_outcomes_nobody_asks_who_is_alive(
    claiming: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claiming.store, "is_alive", None)
    fail_once(claiming)
    claiming.turn()
    claiming.completer.do("reconcile")


# -- when to come back -------------------------------------------------------------


def test_it_comes_back_soon_for_outcomes(claiming: Scene) -> None:
    claiming.exchange.add(outcome(claimed()))
    now: Any = claiming.clock.now
    assert claiming.exchange.next_turn(now) == now + module.LINGER


def test_it_never_spins(claiming: Scene) -> None:
    now = claiming.clock.now
    for later in (0.0, 1.0, 100.0):
        assert claiming.exchange.next_turn(now + later) >= now + later + module.LINGER


# -- rows that somebody else has locked ----------------------------------------------


def test_a_locked_row_holds_up_its_own_outcome_alone(claiming: Scene) -> None:
    claiming.fill()
    locked, free = claimed(), claimed()
    claiming.store.locked = {locked.id}
    for task in (locked, free):
        claiming.exchange.add(outcome(task))
    assert claiming.turn(module.LINGER) == ["exchange"]
    claiming.completer.do(failures=1)
    claiming.settle()
    assert not claiming.exchange.is_settled
    assert claiming.exchange.unwritten == {locked.id}
    claiming.exchange.add(outcome(claimed()))
    assert claiming.turn(module.LINGER) == ["exchange"]
    claiming.completer.do()


def test_a_locked_row_is_tried_again_until_it_is_free(claiming: Scene) -> None:
    claiming.fill()
    locked = claimed()
    claiming.store.locked = {locked.id}
    claiming.exchange.write_as("former", [outcome(locked)])
    claiming.completer.do()
    assert claiming.turn() == []
    due = claiming.exchange.next_turn(claiming.clock.now) - claiming.clock.now
    assert due <= LOCKED_WAIT
    assert claiming.turn(LOCKED_WAIT) == ["write"]
    claiming.completer.do()
    claiming.store.locked.clear()
    claiming.clock.now += LOCKED_WAIT
    assert claiming.turn() == ["write"]
    claiming.completer.do()
    assert claiming.exchange.unwritten == set()
    assert [worker for worker, _, _ in claiming.store.cycles[-3:]] == ["former"] * 3
    assert claiming.exchange.next_turn(claiming.clock.now) < float("inf")


def test_what_others_were_in_the_way_of_leaves_no_doubt(claiming: Scene) -> None:
    claiming.fill()
    claiming.exchange.add(outcome(claimed()))
    assert claiming.turn(module.LINGER) == ["exchange"]
    job = claiming.completer.work(failures=1)
    job.is_doubtful = False
    claiming.completer.finish(job)
    assert "reconcile" not in claiming.turn()
