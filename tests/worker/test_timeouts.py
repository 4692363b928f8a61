"""Exceptions raised in running sync tasks, in the main thread and in others."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from django_jobs.exceptions import SoftTimeLimitExceeded, TaskInterrupted
from django_jobs.worker import timeouts as module
from django_jobs.worker.timeouts import Interruptions
from tests.worker.parts import PATIENCE

SOON = 0.02


@pytest.fixture
def main_thread() -> Iterator[Interruptions]:
    before = signal.getsignal(signal.SIGALRM)
    made = Interruptions()
    made.listen_in_main_thread()
    yield made
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def threads() -> Interruptions:
    return Interruptions()


@pytest.fixture(params=["main thread", "other threads"])
def either(request: pytest.FixtureRequest) -> Interruptions:
    name = "main_thread" if request.param == "main thread" else "threads"
    made: Interruptions = request.getfixturevalue(name)
    return made


def spin(until: Callable[[], bool] = lambda: False) -> None:
    """Run bytecode until told; an interruption comes in between."""
    deadline = time.monotonic() + PATIENCE
    while not until():
        assert time.monotonic() < deadline, "was not interrupted"


def in_thread(call: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    return thread


def test_a_soft_limit_raises_in_the_task(either: Interruptions) -> None:
    begin = time.monotonic()
    with pytest.raises(SoftTimeLimitExceeded), either.watch("a", SOON):
        spin()
    assert time.monotonic() - begin >= SOON


def test_a_task_within_its_limit_is_left_alone(either: Interruptions) -> None:
    with either.watch("a", PATIENCE):
        pass
    with either.watch("b", None):
        pass


def test_a_limit_is_raised_once(either: Interruptions) -> None:
    begin = time.monotonic()
    with either.watch("a", SOON):
        with pytest.raises(SoftTimeLimitExceeded):
            spin()
        spin(lambda: time.monotonic() > begin + 3 * SOON)


def test_a_task_is_interrupted_from_another_thread(either: Interruptions) -> None:
    with pytest.raises(TaskInterrupted), either.watch("a", None):
        in_thread(lambda: either.interrupt("a"))
        spin()


def test_only_the_task_that_is_meant_is_interrupted(either: Interruptions) -> None:
    with either.watch("a", None):
        in_thread(lambda: either.interrupt("b")).join(PATIENCE)
        either.interrupt("")


def test_a_task_that_is_over_is_not_interrupted(either: Interruptions) -> None:
    with either.watch("a", None):
        pass
    either.interrupt("a")
    with either.watch("b", None):
        either.interrupt("a")


def test_leaving_twice_does_no_harm(either: Interruptions) -> None:
    with either.watch("a", PATIENCE):
        either.leave("a")
        either.interrupt("a")


def test_after_leaving_no_limit_is_raised(either: Interruptions) -> None:
    begin = time.monotonic()
    with either.watch("a", SOON):
        either.leave("a")
        spin(lambda: time.monotonic() > begin + 3 * SOON)


# -- main thread -------------------------------------------------------------------


def test_an_alarm_ends_a_blocking_call(main_thread: Interruptions) -> None:
    with pytest.raises(SoftTimeLimitExceeded), main_thread.watch("a", SOON):
        threading.Event().wait(PATIENCE)


def test_an_alarm_that_comes_late_is_not_raised(main_thread: Interruptions) -> None:
    with main_thread.watch("a", None):
        main_thread._wanted = ("a task before", TaskInterrupted)
        signal.raise_signal(signal.SIGALRM)
    main_thread._wanted = ("a", TaskInterrupted)
    signal.raise_signal(signal.SIGALRM)


def test_an_alarm_of_somebody_else_is_not_raised(main_thread: Interruptions) -> None:
    with main_thread.watch("a", None):
        signal.raise_signal(signal.SIGALRM)


def test_the_timer_of_a_task_does_not_outlive_it(main_thread: Interruptions) -> None:
    with main_thread.watch("a", PATIENCE):
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 0
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


def test_a_task_that_changed_the_handler_harms_no_other(
    main_thread: Interruptions,
) -> None:
    with main_thread.watch("a", None):
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
    with pytest.raises(SoftTimeLimitExceeded), main_thread.watch("b", SOON):
        spin()


# -- other threads -----------------------------------------------------------------


def test_each_thread_has_its_own_limit(threads: Interruptions) -> None:
    has_ended = threading.Event()

    def short() -> str:
        try:
            with threads.watch("short", SOON):
                spin()
        except SoftTimeLimitExceeded:
            has_ended.set()
            return "interrupted"
        return "left alone"

    def long() -> str:
        with threads.watch("long", PATIENCE):
            spin(has_ended.is_set)
        return "left alone"

    with ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(long), pool.submit(short)]
    assert [call.result() for call in calls] == ["left alone", "interrupted"]


def test_a_short_limit_is_kept_although_a_longer_one_was_set_before(
    threads: Interruptions,
) -> None:
    with threads.watch("long", PATIENCE):
        pass
    begin = time.monotonic()
    with pytest.raises(SoftTimeLimitExceeded), threads.watch("short", SOON):
        spin()
    assert time.monotonic() - begin < PATIENCE / 2


def test_the_limit_of_an_attempt_is_not_raised_in_the_next_one(
    threads: Interruptions,
) -> None:
    with threads.watch("a", SOON):
        pass
    begin = time.monotonic()
    with threads.watch("a", PATIENCE):
        spin(lambda: time.monotonic() > begin + 3 * SOON)


def test_what_is_not_raised_yet_is_taken_back_at_the_end(
    threads: Interruptions,
) -> None:
    for _ in range(50):
        is_inside, may_leave = threading.Event(), threading.Event()
        errors: list[BaseException] = []

        def run(
            is_inside: threading.Event = is_inside,
            may_leave: threading.Event = may_leave,
            errors: list[BaseException] = errors,
        ) -> None:
            try:
                with threads.watch("a", None):
                    is_inside.set()
                    may_leave.wait(PATIENCE)
            except TaskInterrupted:
                return
            try:
                spin(lambda: True)
            except BaseException as error:
                errors.append(error)

        thread = in_thread(run)
        assert is_inside.wait(PATIENCE)
        may_leave.set()
        threads.interrupt("a")
        thread.join(PATIENCE)
        assert errors == []


def test_at_its_end_a_task_takes_back_what_was_asked_for(
    threads: Interruptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    monkeypatch.setattr(module, "_raise_in", lambda thread, what: asked.append(what))
    with threads.watch("a", None):
        threads.interrupt("a")
    assert asked == [TaskInterrupted, module._NOTHING]


def test_limits_of_tasks_that_are_over_are_forgotten(threads: Interruptions) -> None:
    for number in range(1000):
        with threads.watch(str(number), 3600.0):
            pass
    assert threads._threads == {}
    assert threads._alarms._due == {}
