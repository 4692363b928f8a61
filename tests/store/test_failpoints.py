"""What a point of the store promises is true, as another connection sees it then."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import NamedTuple

import pytest
from django.db import OperationalError, connection, connections, transaction
from django.utils import timezone

from django_jobs.models import Attempt, DeadLetter, Result, Task
from django_jobs.records import Demand
from django_jobs.states import State, Verdict
from django_jobs.store import (
    Store,
    completing,
    control,
    mysql,
    portable,
    postgresql,
    sqlite,
    workers,
)
from tests.processes.harness import wait_for
from tests.store.samples import (
    WORKER,
    be_alive,
    claim_new,
    complete,
    die,
    insert,
    on_both,
    outcome,
)

pytestmark = on_both
MODULES = [completing, control, mysql, portable, postgresql, sqlite, workers]
Look = Callable[[Callable[[], object]], dict[str, list["View"]]]


class View(NamedTuple):
    """How many rows are there, and whether somebody is about to change a task."""

    ready: int
    running: int
    results: int
    dead_letters: int
    is_locked: bool


@pytest.fixture
def look(store: Store, monkeypatch: pytest.MonkeyPatch) -> Look:
    """Call something and return what could be seen at the points that it reached."""
    seen: dict[str, list[View]] = {}

    def note(point: str) -> None:
        with ThreadPoolExecutor(1) as pool:
            seen.setdefault(point, []).append(pool.submit(view).result(60))

    def views(call: Callable[[], object]) -> dict[str, list[View]]:
        for module in MODULES:
            monkeypatch.setattr(module, "reach", note)
        call()
        return seen

    return views


def view() -> View:
    """Count what is committed."""
    try:
        return View(
            Task.objects.filter(state=State.READY).count(),
            Task.objects.filter(state=State.RUNNING).count(),
            Result.objects.count(),
            DeadLetter.objects.count(),
            is_locked(),
        )
    finally:
        connections.close_all()


def is_locked() -> bool:
    """Tell whether a transaction that is open has written to the tasks."""
    if connection.vendor == "sqlite":
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA busy_timeout = 0")
            try:
                cursor.execute("BEGIN IMMEDIATE")
            except OperationalError:
                return True
            cursor.execute("ROLLBACK")
            return False
    if connection.vendor == "postgresql":
        try:  # a statement in a pipeline may still be on its way
            wait_for(lambda: not _free_rows(), 0.5)
        except AssertionError:
            return False
        return True
    return not _free_rows()


def _free_rows() -> int:
    with transaction.atomic():
        rows = Task.objects.select_for_update(skip_locked=True)
        return len(rows.values_list("pk"))


def test_a_claim(store: Store, look: Look) -> None:
    insert(store)
    be_alive(store)
    seen = look(lambda: store.cycle(WORKER, [], Demand(1)))
    [before] = seen["claim.before"]
    assert before[:4] == (1, 0, 0, 0)
    assert seen["claim.after_update"] == [View(1, 0, 0, 0, True)]
    assert seen["claim.after_commit"] == [View(0, 1, 0, 0, False)]


def test_a_completion(store: Store, look: Look) -> None:
    [task] = claim_new(store)
    seen = look(lambda: store.cycle(WORKER, [outcome(task)], None))
    [before] = seen["complete.before"]
    assert before[:4] == (0, 1, 0, 0)
    assert seen["complete.before_commit"] == [View(0, 1, 0, 0, True)]
    [after] = seen["complete.after_commit"]
    assert after[:4] == (0, 0, 1, 0)
    # One statement moves it on PostgreSQL.
    if connection.vendor != "postgresql":
        assert seen["complete.after_insert"] == [View(0, 1, 0, 0, True)]


def test_a_completion_that_is_a_dead_letter(store: Store, look: Look) -> None:
    [task] = claim_new(store)
    seen = look(lambda: complete(store, task, Verdict.FAILED))
    assert seen["complete.after_insert"] == [View(0, 1, 0, 0, True)]
    assert seen["complete.before_commit"] == [View(0, 1, 0, 0, True)]
    [after] = seen["complete.after_commit"]
    assert after[:4] == (0, 0, 0, 1)


def test_a_rescue(store: Store, look: Look) -> None:
    claim_new(store)
    die(store)
    seen = look(store.rescue)
    assert seen["rescue.mid"] == [View(0, 1, 0, 0, True)]
    assert view()[:2] == (1, 0)


def test_pruning(store: Store, look: Look) -> None:
    [task] = claim_new(store)
    complete(store, task)
    Result.objects.update(prune_at=timezone.now() - timedelta(days=1))
    seen = look(store.prune)
    assert [each.results for each in seen["prune.mid"]] == [1, 1]
    assert not Result.objects.exists() and not Attempt.objects.exists()


def test_what_finds_nothing_to_do_commits_nothing(store: Store, look: Look) -> None:
    be_alive(store)
    seen = look(lambda: (store.cycle(WORKER, [], Demand(1)), store.rescue()))
    assert set(seen) == {"claim.before", "claim.after_update"}
