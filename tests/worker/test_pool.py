"""Which children are started, and what if there is no room for them."""

from __future__ import annotations

import errno
import logging
import threading
from typing import Any

import pytest

from django_jobs.worker import pool
from django_jobs.worker.lanes import Assigned
from django_jobs.worker.options import WorkerOptions
from django_jobs.worker.pool import Phase, Pool
from tests.worker.parts import Clock, FakeChild, claimed, pool_of, wait_for


def _refuse(*args: Any) -> None:
    raise RuntimeError("can't start new thread")


def test_without_room_the_fork_server_is_not_even_asked(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pool, "start_fork_server", lambda: pytest.fail("asked"))
    monkeypatch.setattr(threading.Thread, "start", _refuse)
    children = Pool(WorkerOptions(database="default", processes=1))
    with caplog.at_level(logging.ERROR, "django_jobs"):
        assert children.start_missing("me") == []
    assert children.failures == 1
    assert 0 < (children.wait_seconds() or 0) <= 1
    assert "event=child_not_started" in caplog.text
    assert caplog.records[0].exc_info is not None
    assert caplog.records[0].exc_info[1].errno == errno.EAGAIN  # type: ignore[union-attr]


def test_that_children_cannot_be_started_is_said_once_and_so_is_the_end_of_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pool, "start_fork_server", lambda: None)
    monkeypatch.setattr(pool, "Child", lambda *args: FakeChild())
    children = Pool(WorkerOptions(database="default", processes=1))
    with caplog.at_level(logging.WARNING, "django_jobs"):
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", _refuse)
            for _ in range(3):
                children._next_start = 0
                assert children.start_missing("me") == []
        assert (children.failures, children.has_started) == (3, False)
        children._next_start = 0
        assert len(children.start_missing("me")) == 1
    assert (children.failures, children.has_started) == (0, True)
    events = [record.event for record in caplog.records]  # type: ignore[attr-defined]
    assert events == ["child_not_started", "children_started"]


def lingering() -> FakeChild:
    """Return a child that retires while a coroutine goes on."""
    child = FakeChild()
    child.lanes[True].add(Assigned(claimed(), None, 0.0), 0.0)
    child.phase = Phase.RETIRING
    return child


def test_who_retires_while_coroutines_go_on_has_one_successor() -> None:
    pool = pool_of(lingering(), FakeChild())
    assert pool.missing() == 1
    pool.children.append(FakeChild())
    assert pool.missing() == 0


def test_there_are_never_more_than_twice_as_many() -> None:
    pool = pool_of(lingering(), lingering())
    assert pool.missing() == 2
    pool.children += [lingering(), FakeChild()]
    assert pool.missing() == 0
    pool.children.pop(0)
    assert pool.missing() == 1


def test_who_is_about_to_leave_or_runs_a_sync_task_is_waited_for() -> None:
    leaving, busy = FakeChild(), lingering()
    leaving.phase = Phase.RETIRING
    busy.lanes[False].add(Assigned(claimed(), None, 0.0), 0.0)
    assert pool_of(leaving, busy).missing() == 0


def test_who_wants_one_coroutine_at_a_time_gets_no_second_one() -> None:
    assert pool_of(lingering(), coroutines=1).missing() == 0


def test_that_children_die_is_said_once_a_minute(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    monkeypatch.setattr(pool, "time", clock)
    children = pool_of()
    said: list[int] = []
    for second in range(130):
        clock.now += 1
        children.children.append(FakeChild())
        children.remove(children.children[0])
        said += [second] * len(caplog.records)
        caplog.clear()
    assert said == [4, 64, 124]


def test_the_threads_that_tried_the_room_leave_it_again() -> None:
    before = threading.active_count()
    for _ in range(50):
        pool._need_room()
    wait_for(lambda: threading.active_count() <= before)
