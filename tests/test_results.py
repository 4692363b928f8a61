"""What is known of a task from outside, and waiting for its value."""

from __future__ import annotations

import asyncio
import pickle
import re
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.db import connections, transaction
from django.test import override_settings

from django_jobs import (
    ResultError,
    ResultTimeout,
    State,
    TaskExpired,
    TaskFailed,
    TaskNotFound,
    TaskResult,
    TaskRevoked,
    afetch_result,
    fetch_result,
)
from django_jobs.context import TaskContext
from django_jobs.exceptions import UnknownState
from django_jobs.models import Task
from django_jobs.records import ErrorRecord
from django_jobs.results import TaskError
from django_jobs.serializers import dumps
from django_jobs.states import Reason, Verdict
from django_jobs.store import get_store
from tests.sampleapp import tasks
from tests.sampleapp.hands import Hands

#: Workers have connections of their own.
committed = pytest.mark.django_db(transaction=True)
ERROR = ErrorRecord("builtins.OSError", "no route", "Traceback: no route", "0" * 16)


@pytest.fixture
def later() -> Iterator[Callable[[Callable[[], Any]], None]]:
    """Start something in a thread of its own; it is over with the test."""
    threads: list[threading.Thread] = []

    def start(work: Callable[[], Any]) -> None:
        def run() -> None:
            work()
            connections.close_all()

        threads.append(threading.Thread(target=run))
        threads[-1].start()

    yield start
    for thread in threads:
        thread.join(timeout=30)


# -- hints -------------------------------------------------------------------------


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("state", "; write result.status"),
        ("ready", "; write result.is_finished"),
        ("successful", "; write result.status == State.SUCCESSFUL"),
        ("result", "; write result.return_value"),
        ("wait", "; write result.get(timeout=10)"),
        ("nothing", ""),
    ],
)
def test_an_attribute_of_other_results_is_answered_with_ours(
    name: str, words: str
) -> None:
    result = tasks.add.enqueue(1)
    assert not hasattr(result, name)
    message = f"'TaskResult' object has no attribute {name!r}{words}"
    with pytest.raises(AttributeError, match=f"^{re.escape(message)}$"):
        getattr(result, name)


# -- attributes --------------------------------------------------------------------


@committed
def test_a_new_task_is_ready_and_has_no_past() -> None:
    result = fetch_result(tasks.add.using(metadata={"a": [1]}).enqueue(1, b=2).id)
    assert (result.status, result.is_finished) == (State.READY, False)
    assert (result.name, result.queue_name, result.priority) == (
        tasks.add.name,
        "default",
        0,
    )
    assert (result.args, result.kwargs, result.metadata) == ([1], {"b": 2}, {"a": [1]})
    assert result.enqueued_at is not None
    assert result.enqueued_at.utcoffset() == timedelta(0)
    assert result.run_after == result.enqueued_at
    assert [result.started_at, result.last_attempted_at, result.finished_at] == [
        None
    ] * 3
    assert (result.attempts, result.worker_ids, result.errors) == (0, [], [])


@committed
def test_a_successful_task_has_a_value_and_its_times() -> None:
    result = tasks.add.enqueue(1)
    hands = Hands()
    hands.run(return_value=dumps({"when": timedelta(seconds=1)}))
    result.refresh()
    assert (result.status, result.is_finished) == (State.SUCCESSFUL, True)
    assert result.return_value == {"when": timedelta(seconds=1)}
    assert (result.attempts, result.worker_ids) == (1, [hands.id])
    assert result.enqueued_at and result.started_at and result.finished_at
    assert result.enqueued_at <= result.started_at <= result.finished_at
    assert result.started_at == result.last_attempted_at


@committed
def test_a_task_that_runs_for_the_first_time_has_started() -> None:
    result = tasks.add.enqueue(1)
    hands = Hands()
    claimed = hands.claim()
    result.refresh()
    assert result.started_at is not None
    assert result.started_at == result.last_attempted_at
    hands.complete(claimed, Verdict.RETRY, error=ERROR, delay=0)
    result.refresh()
    first = result.started_at
    assert first is not None
    Task.objects.update(state=State.READY)
    hands.claim()
    result.refresh()
    assert result.last_attempted_at is not None
    assert result.started_at == first < result.last_attempted_at


@committed
def test_progress_is_read_while_the_task_runs() -> None:
    result = tasks.add.enqueue(1)
    assert result.progress is None
    hands = Hands()
    claimed = hands.claim()
    context = TaskContext(claimed, hands.id)
    context.progress(3, 10, "pages")
    assert result.progress is None
    result.refresh()
    assert result.progress == (3, 10, "pages")
    assert result.progress.message == "pages"
    context.progress(0.5)
    result.refresh()
    assert result.progress == (0.5, None, "")
    hands.complete(claimed)
    result.refresh()
    assert result.progress is None


@committed
def test_a_value_that_is_not_stored_is_none() -> None:
    result = tasks.add.enqueue(1)
    Hands().run()
    assert result.get(timeout=5) is None


@committed
def test_attempts_and_errors_are_counted_together() -> None:
    result = tasks.add.enqueue(1)
    first, second = Hands(), Hands()
    first.run(Verdict.RETRY, error=ERROR, started=1.0, finished=1.0)
    result.refresh()
    assert (result.status, result.is_finished) == (State.READY, False)
    assert (result.attempts, result.worker_ids) == (1, [first.id])
    assert result.errors == [
        TaskError("builtins.OSError", "no route", "Traceback: no route")
    ]
    assert result.errors[0].exception_class is OSError
    second.run()
    result.refresh()
    assert (result.attempts, result.worker_ids) == (2, [first.id, second.id])
    assert len(result.errors) == 1


@pytest.mark.parametrize(
    "path", ["os.path.join", "never.imported.Error", "builtins.int", "", "builtins"]
)
def test_a_stored_class_is_looked_up_but_never_imported(path: str) -> None:
    with pytest.raises(ValueError, match="no exception class here"):
        TaskError(path, "", "").exception_class  # noqa: B018


class Outer:
    class Inner(Exception):
        """An error inside a class."""


def test_a_class_within_a_class_is_found() -> None:
    assert TaskError(f"{__name__}.Outer.Inner", "", "").exception_class is Outer.Inner


# -- equality ----------------------------------------------------------------------


@committed
def test_results_are_equal_by_id_and_content() -> None:
    result = tasks.add.enqueue(1)
    again = fetch_result(result.id)
    assert again == result
    assert hash(again) == hash(result)
    assert tasks.add.enqueue(1) != result
    assert result != result.id
    Hands().run()
    again.refresh()
    assert again != result


@committed
def test_results_can_be_pickled() -> None:
    result = tasks.add.enqueue(1)
    assert pickle.loads(pickle.dumps(result)) == result  # noqa: S301


@pytest.mark.django_db
def test_a_result_shows_no_arguments() -> None:
    result = tasks.send.enqueue("x", password="hunter2")
    assert repr(result) == f"<TaskResult sample.send {result.id} READY>"


# -- fetching ----------------------------------------------------------------------


@pytest.mark.django_db
@pytest.mark.parametrize("task_id", ["", "x", None, 5, "é" * 36])
def test_what_is_no_id_is_named_as_such(task_id: Any) -> None:
    for fetch in (fetch_result, tasks.add.get_result):
        with pytest.raises(TaskNotFound, match=r"which is none: .* result\.id, a UUID"):
            fetch(task_id)


@pytest.mark.django_db
@pytest.mark.parametrize(
    "task_id",
    ["", "x", "0199", "01990000-0000-7000-8000-000000000000", "\x00", "é" * 36],
)
def test_an_id_that_no_task_has_is_not_found(task_id: str) -> None:
    with pytest.raises(TaskNotFound, match="no task has the id"):
        fetch_result(task_id)


@pytest.mark.django_db
def test_a_state_that_there_is_not_is_named_with_its_task() -> None:
    result = tasks.add.enqueue(1)
    Task.objects.update(state="ODD")
    result.refresh()
    assert result.args == [1]
    for look in (lambda: result.status, lambda: result.is_finished, result.get):
        with pytest.raises(UnknownState, match=f"{result.id} has the state 'ODD'"):
            look()


@pytest.mark.django_db
def test_an_id_may_be_written_in_any_way() -> None:
    result = tasks.add.enqueue(1)
    assert fetch_result(result.id.upper().replace("-", "")).id == result.id


@committed
def test_results_are_fetched_from_async_code() -> None:
    result = tasks.add.enqueue(1)
    assert async_to_sync(afetch_result)(result.id) == result
    Hands().run()
    async_to_sync(result.arefresh)()
    assert result.status == State.SUCCESSFUL


@pytest.mark.django_db(transaction=True, databases=["default", "other"])
def test_a_result_stays_with_its_database() -> None:
    with override_settings(DJANGO_JOBS={"DATABASE": "other"}):
        result = tasks.add.enqueue(1)
    result.refresh()
    assert fetch_result(result.id, "other") == result
    with pytest.raises(TaskNotFound):
        fetch_result(result.id)


# -- values and their absence ------------------------------------------------------


@committed
def test_an_unfinished_task_has_no_value_yet() -> None:
    result = tasks.add.enqueue(1)
    with pytest.raises(ResultError, match="is not finished yet, it is READY"):
        result.return_value  # noqa: B018
    with pytest.raises(ValueError, match="not finished"):  # as with django.tasks
        result.return_value  # noqa: B018


@committed
def test_a_failed_task_raises_what_is_known_of_its_error() -> None:
    result = tasks.add.enqueue(1)
    Hands().run(Verdict.FAILED, reason=Reason.ATTEMPTS, error=ERROR)
    with pytest.raises(TaskFailed) as caught:
        result.get(timeout=5)
    assert "attempts used up; builtins.OSError: no route" in str(caught.value)
    assert result.id in str(caught.value)
    assert caught.value.exception_class_path == "builtins.OSError"
    assert caught.value.traceback == "Traceback: no route"
    assert result.status == State.FAILED


@committed
def test_a_revoked_task_says_so() -> None:
    result = tasks.add.enqueue(1)
    assert result.revoke() is True
    assert (result.status, result.is_finished) == (State.REVOKED, True)
    with pytest.raises(TaskRevoked, match="was revoked"):
        result.get(timeout=5)


@committed
def test_an_expired_task_says_so() -> None:
    result = tasks.add.enqueue(1)
    Hands().run(Verdict.EXPIRED)
    with pytest.raises(TaskExpired, match="expired before"):
        result.get(timeout=5)


# -- revoke ------------------------------------------------------------------------


@committed
def test_a_running_task_is_asked_to_stop() -> None:
    result = tasks.add.enqueue(1)
    hands = Hands()
    claimed = hands.claim()
    assert result.revoke() is True
    assert result.status == State.RUNNING
    assert hands.store.revoke_requests(hands.id) == [claimed.id]


@committed
def test_a_finished_task_is_not_revoked() -> None:
    result = tasks.add.enqueue(1)
    Hands().run()
    assert result.revoke() is False
    assert async_to_sync(result.arevoke)() is False
    assert result.status == State.SUCCESSFUL


# -- waiting -----------------------------------------------------------------------


@committed
def test_get_waits_for_the_value(later: Callable[..., None]) -> None:
    result = tasks.add.enqueue(1)
    gone_on = threading.Event()

    def work() -> None:
        hands = Hands()
        claimed = hands.claim()
        gone_on.wait(timeout=30)
        hands.complete(claimed, return_value="3")

    later(work)
    with pytest.raises(ResultTimeout):
        result.get(timeout=0.01)
    gone_on.set()
    assert result.get(timeout=30) == 3


@committed
def test_aget_waits_for_the_value(later: Callable[..., None]) -> None:
    result = tasks.add.enqueue(1)
    later(lambda: Hands().run(return_value="3"))
    assert async_to_sync(result.aget)(timeout=30) == 3


@committed
def test_get_gives_up_in_time() -> None:
    result = tasks.add.enqueue(1)
    with pytest.raises(ResultTimeout, match=r"not finished after 0\.05 s"):
        result.get(timeout=timedelta(seconds=0.05))
    with pytest.raises(TimeoutError):  # as everywhere in Python
        async_to_sync(result.aget)(timeout=0)


@committed
def test_who_waited_in_vain_learns_where_to_look() -> None:
    ask = r"is a worker running\? See manage\.py jobs status"
    with pytest.raises(ResultTimeout, match=rf": it is READY; {ask}$"):
        tasks.add.enqueue(1).get(timeout=0)
    due = datetime(2040, 1, 1, 12, 30, tzinfo=UTC)
    words = rf": it is SCHEDULED for 2040-01-01 12:30:00 UTC; {ask}$"
    with pytest.raises(ResultTimeout, match=words):
        tasks.add.using(run_after=due).enqueue(1).get(timeout=0)
    Hands().claim()
    with pytest.raises(ResultTimeout, match=r": it is RUNNING$"):
        fetch_result(Task.objects.get(state="RUNNING").id).get(timeout=0)


@committed
def test_who_waited_after_a_failure_learns_of_it() -> None:
    result = tasks.add.enqueue(1)
    error = ERROR._replace(
        exception_class="builtins.AttributeError", message="x\n" + "x" * 999
    )
    hands = Hands()
    hands.run(Verdict.RETRY, error=error, delay=3600)
    with pytest.raises(ResultTimeout) as caught:
        result.get(timeout=0)
    words = str(caught.value)
    assert "; next try at 20" in words
    assert "UTC; see manage.py jobs show " + result.id in words
    assert "attempt 1 of 3 failed with AttributeError: x xxx" in words
    assert "is a worker running" not in words
    assert len(words) < 500
    Task.objects.update(state=State.READY)
    hands.claim()
    with pytest.raises(ResultTimeout, match=r"attempt 1 of 3 .*; it is RUNNING; see"):
        result.get(timeout=0)


@committed
def test_a_result_that_is_known_needs_no_database() -> None:
    result = tasks.add.enqueue(1)
    Hands().run(return_value="3")
    result.refresh()
    Hands().store.prune(older_than=0)
    assert result.get() == 3


@committed
def test_a_result_that_was_pruned_is_not_waited_for() -> None:
    result = tasks.add.enqueue(1)
    Hands().run()
    get_store().prune(older_than=0)
    with pytest.raises(TaskNotFound, match="pruned"):
        result.get(timeout=30)


@pytest.mark.parametrize("timeout", [-1, "soon", True])
@committed
def test_a_timeout_that_is_none_is_refused(timeout: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="a delay is"):
        tasks.add.enqueue(1).get(timeout=timeout)


@committed
def test_waiting_in_the_transaction_of_the_enqueue_is_refused() -> None:
    with transaction.atomic():
        result = tasks.add.enqueue(1)
        with pytest.raises(ResultError, match="no worker sees it before the commit"):
            result.get(timeout=30)
    Hands().run(return_value="3")
    assert result.get(timeout=30) == 3


@committed
def test_the_next_transaction_is_not_that_of_the_enqueue() -> None:
    with transaction.atomic():
        result = tasks.add.enqueue(1)
    with transaction.atomic(), pytest.raises((ResultTimeout, ResultError)) as caught:
        result.get(timeout=0)
    assert "before the commit" not in str(caught.value)


@committed
def test_waiting_for_an_insert_that_waits_is_refused() -> None:
    with transaction.atomic():
        result = tasks.add.using(on_commit=True).enqueue(1)
        with pytest.raises(TaskNotFound, match="did not commit"):
            result.get(timeout=30)


@committed
def test_waiting_in_a_transaction_that_blocks_the_worker_is_refused(
    requires: Callable[..., None],
) -> None:
    requires("sqlite")
    result = tasks.add.enqueue(1)
    with transaction.atomic(), pytest.raises(ResultError, match="keep the worker from"):
        result.get(timeout=30)


@committed
def test_a_finished_result_is_had_in_any_transaction() -> None:
    result = tasks.add.enqueue(1)
    Hands().run(return_value="3")
    with transaction.atomic():
        assert result.get(timeout=30) == 3


@committed
def test_waiting_inside_a_task_is_warned_of() -> None:
    result: TaskResult[int] = tasks.add.enqueue(1)
    hands = Hands()
    with (
        TaskContext(hands.claim(), hands.id).active(),
        pytest.warns(RuntimeWarning, match="nobody is left to do the work"),
        pytest.raises(ResultTimeout),
    ):
        result.get(timeout=0)


@committed
def test_many_coroutines_wait_at_once() -> None:
    async def scenario() -> list[int]:
        results = [await tasks.add.aenqueue(number) for number in range(5)]
        waiting = asyncio.gather(*[result.aget(timeout=30) for result in results])
        await sync_to_async(work)()
        return await waiting

    def work() -> None:
        hands = Hands()
        for _ in range(5):
            claimed = hands.claim()
            hands.complete(claimed, return_value=claimed.args[1:-1])

    assert async_to_sync(scenario)() == [0, 1, 2, 3, 4]
