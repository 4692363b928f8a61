"""Atomic tasks in trouble: what is run again, and what becomes of a lost COMMIT."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import OperationalError, connections, transaction

from django_jobs.models import Queue, Result, Task
from django_jobs.records import ClaimedTask, Outcome
from django_jobs.signals import task_finished
from django_jobs.states import State, Verdict
from django_jobs.store import get_store
from django_jobs.worker import atomic, executor
from django_jobs.worker.atomic import was_committed
from django_jobs.worker.executor import Executor
from django_jobs.worker.timeouts import Interruptions
from tests.faults import Faults, IsMeant, Mode, Trouble, troubles
from tests.sampleapp.hands import Hands
from tests.statements import watched
from tests.worker import tasks

pytestmark = pytest.mark.django_db(transaction=True)

LOST = [trouble for mode in (Mode.AFTER, Mode.CUT_AFTER) for trouble in troubles(mode)]
REFUSED = [
    trouble
    for mode in (Mode.BEFORE, Mode.UNDONE, Mode.CUT_BEFORE)
    for trouble in troubles(mode)
]

#: Somebody else has a lock that is wanted.
IN_THE_WAY = [
    trouble
    for trouble in troubles(Mode.BEFORE)
    if re.match("deadlock|lock wait|.* lock timeout", trouble.words, re.IGNORECASE)
]


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atomic, "FIRST_WAIT", 0.001)
    monkeypatch.setattr(atomic, "ASK_SECONDS", 20.0)
    tasks.seen.clear()


@pytest.fixture
def told() -> Iterator[list[str]]:
    """What receivers are told that became of runs."""
    states: list[str] = []

    def finished(task_result: Any, **kwargs: Any) -> None:
        states.append(task_result.record.state)

    task_finished.connect(finished, sender=tasks.note)
    yield states
    task_finished.disconnect(finished, sender=tasks.note)


def commits() -> IsMeant:
    """Mean the first COMMIT."""
    seen: list[object] = []

    def is_meant(call: Any, count: int) -> bool:
        if call.verb == "commit":
            seen.append(call)
        return call.verb == "commit" and len(seen) == 1

    return is_meant


def first_write() -> IsMeant:
    """Mean the first statement of the body."""
    writes = itertools.count(1)
    table = Queue._meta.db_table
    return lambda call, _: f"INTO {table} " in unquoted(call.text) and next(writes) == 1


def unquoted(text: str) -> str:
    return text.replace('"', "").replace("`", "")


def claim() -> tuple[Hands, ClaimedTask]:
    tasks.note.enqueue("kept")
    hands = Hands()
    return hands, hands.claim()


def run(
    hands: Hands, task: ClaimedTask, trouble: Trouble, is_meant: IsMeant
) -> Outcome:
    """Run a task in a thread, with a connection of its own, while calls fail."""
    runner = Executor(hands.id, "default", Interruptions())
    faults = Faults()

    def go() -> Outcome:
        try:
            return runner.run(task)
        finally:
            connections.close_all()

    with watched(faults), ThreadPoolExecutor(1) as thread:
        faults.arm([trouble], is_meant)
        outcome = thread.submit(go).result()
    assert faults.struck
    return outcome


def events(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        getattr(record, "verdict", None) or record.event  # type: ignore[attr-defined]
        for record in caplog.records
    ]


@pytest.mark.parametrize("trouble", LOST, ids=str)
def test_a_commit_whose_answer_is_lost_has_committed(
    trouble: Trouble, told: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "django_jobs")
    hands, task = claim()
    outcome = run(hands, task, trouble, commits())
    assert (outcome.verdict, outcome.recorded) == (Verdict.SUCCESSFUL, True)
    assert (tasks.seen, told) == ([True], [State.SUCCESSFUL])
    assert events(caplog) == ["commit_answer_lost", "successful"]
    assert Result.objects.get().return_value == '"kept"'
    assert Queue.objects.get().name == "kept"


@pytest.mark.parametrize("trouble", REFUSED, ids=str)
def test_a_commit_that_never_came_is_a_failure_or_made_good(
    trouble: Trouble, told: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "django_jobs")
    hands, task = claim()
    outcome = run(hands, task, trouble, commits())
    if "atomic_conflict" in caplog.text:
        assert events(caplog) == ["atomic_conflict", "successful"]
        assert (tasks.seen, told) == ([True, True], [State.SUCCESSFUL])
    else:
        assert events(caplog) == ["retry"]
        assert (tasks.seen, told) == ([True], [State.SCHEDULED])
    done = outcome.verdict is Verdict.SUCCESSFUL
    assert (outcome.recorded, Queue.objects.exists()) == (done, done)
    assert Task.objects.exists() is not done


def test_a_conflict_behind_the_commit_is_not_a_reason_to_run_again(
    requires: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    requires("mysql")
    caplog.set_level("INFO", "django_jobs")
    hands, task = claim()
    before: list[str] = []

    def is_meant(call: Any, count: int) -> bool:
        before.append(call.verb)
        return before[-2:] == ["commit", "execute"] and call.text == "SET AUTOCOMMIT"

    outcome = run(hands, task, troubles(Mode.BEFORE)[0], is_meant)
    assert (outcome.verdict, outcome.recorded) == (Verdict.SUCCESSFUL, True)
    assert events(caplog) == ["commit_answer_lost", "successful"]
    assert Queue.objects.count() == 1


@pytest.mark.parametrize("trouble", IN_THE_WAY, ids=str)
def test_a_body_runs_again_after_a_deadlock_but_not_after_a_long_wait(
    trouble: Trouble, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "django_jobs")
    hands, task = claim()
    verdict = run(hands, task, trouble, first_write()).verdict
    if "deadlock" in trouble.words.lower():
        assert events(caplog) == ["atomic_conflict", "successful"]
        assert (verdict, Queue.objects.count()) == (Verdict.SUCCESSFUL, 1)
    else:
        assert events(caplog) == ["retry"]
        assert (verdict, Queue.objects.count()) == (Verdict.RETRY, 0)


def test_while_nobody_answers_the_fence_keeps_the_outcome(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(atomic, "ASK_SECONDS", 0.2)
    hands, task = claim()
    is_commit, is_over = commits(), []

    def is_meant(call: Any, count: int) -> bool:
        if is_commit(call, count):
            is_over.append(call)
        return bool(is_over)

    outcome = run(hands, task, LOST[-1], is_meant)
    assert (outcome.verdict, outcome.recorded) == (Verdict.RETRY, False)
    assert "event=commit_unknown" in caplog.text
    assert hands.store.cycle(hands.id, [outcome], None).stale == [task.id]
    assert Result.objects.get().state == State.SUCCESSFUL
    assert Queue.objects.count() == 1


def test_a_commit_that_is_still_under_way_is_waited_for() -> None:
    hands, task = claim()
    looks: list[bool] = []

    class Store:
        alias = "default"

        def fetch(self, task_id: str) -> Any:
            looks.append(True)
            if len(looks) == 2:
                hands.complete(task)
            return get_store().fetch(task_id)

    assert was_committed(Store(), hands.id, task)  # type: ignore[arg-type]
    assert len(looks) == 2


def test_a_row_that_stays_as_it_was_is_believed() -> None:
    hands, task = claim()
    assert was_committed(get_store(), hands.id, task) is False


def test_a_result_that_is_not_kept_was_committed() -> None:
    hands, task = claim()
    hands.complete(task)
    Result.objects.all().delete()
    assert was_committed(get_store(), hands.id, task) is True


def test_what_another_worker_has_done_was_not_committed_here() -> None:
    hands, task = claim()
    hands.store.sign_off(hands.id)
    other = Hands()
    other.complete(other.claim())
    assert was_committed(get_store(), hands.id, task) is False


def test_in_a_transaction_of_others_nothing_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail_at_the_end(database: str, work: Callable[[], None], _: object) -> None:
        work()
        raise OperationalError("cannot release the savepoint")

    monkeypatch.setattr(executor, "run_atomically", fail_at_the_end)
    hands, task = claim()
    with transaction.atomic():
        outcome = Executor(hands.id, "default", Interruptions()).run(task)
        assert not transaction.get_connection().closed_in_transaction
        transaction.set_rollback(True)
    assert outcome.verdict is Verdict.RETRY
