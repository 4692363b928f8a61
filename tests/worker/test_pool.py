"""Starting children when there is no room for them."""

from __future__ import annotations

import errno
import logging
import threading
from typing import Any

import pytest

from django_jobs.worker import pool
from django_jobs.worker.options import WorkerOptions
from django_jobs.worker.pool import Pool
from tests.worker.parts import wait_for


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


def test_the_threads_that_tried_the_room_leave_it_again() -> None:
    before = threading.active_count()
    for _ in range(50):
        pool._need_room()
    wait_for(lambda: threading.active_count() <= before)
