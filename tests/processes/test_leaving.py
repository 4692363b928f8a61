"""Tasks that try to leave by other ways than a return: none of them is a success."""

from __future__ import annotations

from pathlib import Path

import pytest

from django_jobs.models import Attempt, DeadLetter
from tests.processes import tasks, wrecking
from tests.processes.conftest import StartWorker
from tests.processes.harness import census, finished, lines, wait_for

pytestmark = pytest.mark.django_db(transaction=True)


def test_whatever_is_raised_is_a_failure(start_worker: StartWorker) -> None:
    worker = start_worker("--processes", "1")
    children = worker.children()
    ids = {
        leave.enqueue(kind).id: kind
        for leave in (wrecking.leave, wrecking.async_leave)
        for kind in wrecking.LEAVING
    }
    assert tasks.add.enqueue(1, 1).get(timeout=20) == 2
    wait_for(finished(len(ids) + 1))
    letters = {str(each.pk): each for each in DeadLetter.objects.all()}
    for task_id, kind in ids.items():
        # Python itself wraps some of them where they leave a coroutine.
        assert kind in letters[task_id].exception_class + letters[task_id].message
    assert worker.children() == children
    assert census() == {"tasks": 0, "results": 1, "dead letters": len(ids)}


def test_a_coroutine_that_ends_the_process_has_crashed(
    start_worker: StartWorker, audit: Path
) -> None:
    start_worker("--processes", "1")
    result = wrecking.async_exit.enqueue(str(audit))
    assert tasks.add.enqueue(1, 1).get(timeout=20) == 2
    assert result.get(timeout=20) == "survived"
    assert lines(audit) == ["attempt 1", "attempt 2"]
    (attempt,) = Attempt.objects.filter(task_id=result.id)
    assert "exited with status 0" in attempt.message
