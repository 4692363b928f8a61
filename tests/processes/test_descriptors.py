"""Tasks that close what is not theirs: the outcome is known, the next task runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from django_jobs.models import Attempt, Queue, Result
from tests.processes import tasks, wrecking
from tests.processes.conftest import StartWorker
from tests.processes.harness import census, lines, wait_for

pytestmark = pytest.mark.django_db(transaction=True)

CLOSERS = [wrecking.close, wrecking.async_close]


def test_who_closes_descriptors_of_others_costs_the_next_nothing(
    start_worker: StartWorker,
) -> None:
    worker = start_worker("--processes", "1")
    tasks.create_queue.enqueue("before").get(timeout=20)
    for number, kind in enumerate(["low", "standard", "output"]):
        for closer in CLOSERS:
            (child,) = worker.children()
            assert closer.enqueue(kind).get(timeout=20) == f"closed {kind}"
            # With a connection of the same child, if that were to go on.
            tasks.create_queue.enqueue(f"{kind} {closer.name}").get(timeout=20)
            tasks.async_create_queue.enqueue(f"a{number}{closer.name}").get(timeout=20)
            assert worker.children() != [child]
    assert Queue.objects.count() == 13
    # A coroutine that closes those of its own loop crashes, and only that one.
    others = Result.objects.exclude(name=wrecking.async_close.name)
    assert set(others.values_list("attempt", flat=True)) == {1}
    assert worker.output().count("closed descriptors") >= 5


def test_who_closes_the_channel_has_crashed(start_worker: StartWorker) -> None:
    start_worker("--processes", "1")
    for kind in ("high", "all"):
        for closer in CLOSERS:
            closes = closer.enqueue(kind)
            assert tasks.add.enqueue(1, 1).get(timeout=20) == 2
            assert closes.get(timeout=20) == f"closed {kind}"
            (attempt,) = Attempt.objects.filter(task_id=closes.id)
            assert attempt.verdict == "crashed"
    assert census() == {"tasks": 0, "results": 8, "dead letters": 0}


def test_neighbours_of_who_closes_descriptors_run_again_for_nothing(
    start_worker: StartWorker, audit: Path
) -> None:
    worker = start_worker("--processes", "1")
    neighbour = wrecking.write_then_sleep.enqueue(str(audit), 1)
    wait_for(lambda: lines(audit))
    assert wrecking.close.enqueue("low").get(timeout=20) == "closed low"
    assert neighbour.get(timeout=20) == "slept"
    assert lines(audit) == ["start", "start"]
    assert neighbour.attempts == 1
    assert "closed descriptors" in Attempt.objects.get().message
    assert "event=uncaught" not in worker.output()
