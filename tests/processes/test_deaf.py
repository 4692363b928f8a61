"""Tasks that hear nothing: the hard limit ends them in a second, the next one runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from django_jobs.definitions import TaskDefinition
from django_jobs.models import Attempt, DeadLetter, Result
from tests.processes import tasks, wrecking
from tests.processes.conftest import StartWorker
from tests.processes.harness import census, finished, lines, wait_for

pytestmark = pytest.mark.django_db(transaction=True)

HARD, SOFT, NONE = "TimeLimitExceeded", "SoftTimeLimitExceeded", "successful"
#: What holds out against a hard limit alone: nothing.
WITH_HARD_LIMIT = dict.fromkeys(wrecking.DEAF, HARD)
#: Python itself looks for signals in some of what takes long, and a finalizer swallows
#: what is raised in it.
WITH_SOFT_LIMIT = WITH_HARD_LIMIT | {
    "a finalizer": NONE,
    "a power": SOFT,
    "a regex": SOFT,
}


@pytest.mark.parametrize(
    ("task", "ends"),
    [
        (wrecking.be_deaf, WITH_HARD_LIMIT),
        (wrecking.be_deaf_softly, WITH_SOFT_LIMIT),
        (wrecking.async_be_deaf, {"swallows all": HARD, "a regex": HARD}),
    ],
    ids=["sync", "with a soft limit", "async"],
)
def test_the_hard_limit_ends_whoever_hears_nothing_within_a_second(
    start_worker: StartWorker, task: TaskDefinition[..., Any], ends: dict[str, str]
) -> None:
    worker = start_worker("--processes", "3")
    kinds = {task.using(time_limit=1).enqueue(kind).id: kind for kind in ends}
    assert tasks.add.enqueue(1, 1).get(timeout=60) == 2
    wait_for(finished(len(ends) + 1), 60)
    found = {
        kinds.get(str(pk)): NONE for pk in Result.objects.values_list("pk", flat=1)
    }
    for letter in DeadLetter.objects.all():
        found[kinds[str(letter.pk)]] = letter.exception_class.rpartition(".")[2]
    assert found == {**ends, None: NONE}
    for attempt in Attempt.objects.filter(verdict="failed"):
        assert (attempt.finished_at - attempt.started_at).total_seconds() < 1 + 1
    assert worker.process.poll() is None
    assert census()["tasks"] == 0


def test_who_blocks_signals_makes_nobody_else_deaf(
    start_worker: StartWorker, audit: Path
) -> None:
    worker = start_worker("--processes", "1")
    children = worker.children()
    wrecking.block_signals_for.enqueue(0.4)
    following = [tasks.sleep.enqueue(0.05) for _ in range(3)]
    assert [each.get(timeout=20) for each in following] == ["slept"] * 3
    tidied = tasks.tidy_up.enqueue(str(audit))
    wait_for(finished(5))
    # Thirty seconds later, if nothing had interrupted its sleep.
    (attempt,) = Attempt.objects.filter(task_id=tidied.id)
    assert (attempt.finished_at - attempt.started_at).total_seconds() < 5
    assert lines(audit) == ["tidied up"]
    assert worker.children() == children
