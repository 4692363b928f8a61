"""What a running task may know of itself and tell the outside."""

from __future__ import annotations

import math
import time
from typing import Any

import pytest
from asgiref.sync import async_to_sync

from django_jobs import InvalidArguments, StaleLease, current_context, fetch_result
from django_jobs.context import TaskContext
from django_jobs.exceptions import InvalidResult
from django_jobs.models import Task
from django_jobs.records import ClaimedTask
from django_jobs.serializers import loads
from tests.sampleapp import tasks
from tests.sampleapp.hands import Hands


@pytest.fixture
def hands(db: None) -> Hands:
    return Hands()


@pytest.fixture
def context(hands: Hands) -> TaskContext:
    tasks.describe.using(metadata={"tenant": 7}).enqueue("x")
    return TaskContext(hands.claim(), hands.id)


def claimed(**changes: Any) -> ClaimedTask:
    fields: dict[str, Any] = {
        "id": "01990000-0000-7000-8000-000000000000",
        "lease": 1,
        "attempt": 1,
        "crashes": 0,
        "max_attempts": 3,
        "name": "x",
        "queue_name": "default",
        "priority": 0,
        "args": "[]",
        "kwargs": "{}",
        "metadata": "{}",
        "headers": "{}",
        "time_limit": None,
        "is_expired": False,
    }
    return ClaimedTask(**{**fields, **changes})


def test_a_context_knows_its_attempt_and_arguments(context: TaskContext) -> None:
    assert (context.attempt, context.args, context.kwargs) == (1, ["x"], {})
    assert context.idempotency_key == context.claimed.id
    assert context.metadata == {"tenant": 7}
    assert "timezone" not in context.headers


def test_the_result_of_the_running_task_is_at_hand(context: TaskContext) -> None:
    assert context.task_result == fetch_result(context.claimed.id)
    assert context.task_result.attempts == 1


@pytest.mark.django_db(transaction=True)
def test_everything_works_from_async_code() -> None:
    tasks.describe.enqueue("x")
    hands = Hands()
    context = TaskContext(hands.claim(), hands.id)

    async def scenario() -> None:
        assert (await context.atask_result()).id == context.claimed.id
        context.metadata["a"] = 1
        await context.asave_metadata()
        await context.aprogress(1, 2, "half")

    async_to_sync(scenario)()
    assert fetch_result(context.claimed.id).metadata == {"a": 1}
    assert loads(Task.objects.get().progress or "")["message"] == "half"


def test_metadata_is_written_on_demand(context: TaskContext) -> None:
    context.metadata["step"] = {"done": [1, 2]}
    context.save_metadata()
    saved = fetch_result(context.claimed.id).metadata
    assert saved == {"tenant": 7, "step": {"done": [1, 2]}}


def test_progress_is_written_at_once(context: TaskContext) -> None:
    context.progress(1, 3, "NUL \x00 and \ud800")
    progress = loads(Task.objects.get().progress or "")
    assert progress == {"current": 1, "total": 3, "message": "NUL \x00 and \ud800"}
    context.progress(2.5)
    progress = loads(Task.objects.get().progress or "")
    assert progress == {"current": 2.5, "total": None, "message": ""}


def test_only_metadata_that_was_changed_is_handed_over() -> None:
    context = TaskContext(claimed(metadata='{"a":1}'), "worker")
    assert context.changed_metadata() is None
    assert context.metadata == {"a": 1}
    assert context.changed_metadata() is None
    context.metadata["b"] = 2
    assert context.changed_metadata() == '{"a":1,"b":2}'


def test_metadata_that_is_no_json_is_refused_by_its_path() -> None:
    context = TaskContext(claimed(), "worker")
    context.metadata["a"] = [{1}]
    with pytest.raises(InvalidArguments, match=r"metadata\['a'\]\[0\]: set"):
        context.save_metadata()
    context.metadata = []  # type: ignore[assignment]
    with pytest.raises(TypeError, match="is a dict"):
        context.changed_metadata()


def test_metadata_and_progress_that_are_too_long_are_refused(
    context: TaskContext, settings: Any
) -> None:
    settings.DJANGO_JOBS = {"PAYLOAD_MAX_BYTES": 60}
    context.metadata["a"] = "x" * 41
    context.save_metadata()
    assert context.changed_metadata() is not None
    context.metadata["a"] += "x"
    words = r"metadata has 61 bytes of JSON, over PAYLOAD_MAX_BYTES \(60\)"
    for use in (context.save_metadata, context.changed_metadata):
        with pytest.raises(InvalidResult, match=words):
            use()
    words = r"progress has \d+ bytes of JSON, over PAYLOAD_MAX_BYTES \(60\)"
    with pytest.raises(InvalidResult, match=words):
        context.progress(1, 2, "x" * 41)
    assert Task.objects.get().progress is None
    assert fetch_result(context.claimed.id).metadata["a"] == "x" * 41


def test_metadata_that_was_long_before_is_no_news(
    context: TaskContext, settings: Any
) -> None:
    settings.DJANGO_JOBS = {"PAYLOAD_MAX_BYTES": 5}
    assert context.metadata == {"tenant": 7}
    assert context.changed_metadata() is None
    context.save_metadata()


def test_a_run_that_lost_its_lease_writes_nothing(
    hands: Hands, context: TaskContext
) -> None:
    hands.complete(context.claimed)
    context.metadata["late"] = True
    with pytest.raises(StaleLease, match="lost its lease"):
        context.save_metadata()
    with pytest.raises(StaleLease):
        context.progress(1)
    assert fetch_result(context.claimed.id).metadata == {"tenant": 7}


def test_a_direct_call_writes_nothing() -> None:
    context = TaskContext(claimed(), worker_id="")
    context.save_metadata()
    context.progress(1, 2)


def test_the_context_of_a_running_task_is_the_current_one() -> None:
    outer, inner = TaskContext(claimed(), ""), TaskContext(claimed(), "")
    assert current_context() is None
    with outer.active():
        with inner.active():
            assert current_context() is inner
        assert current_context() is outer
    assert current_context() is None


def test_a_task_without_limit_has_all_the_time() -> None:
    context = TaskContext(claimed(), "")
    assert context.remaining() == math.inf
    assert context.should_stop() is False


def test_a_task_knows_the_time_that_is_left() -> None:
    context = TaskContext(claimed(), "", deadline=time.monotonic() + 100)
    assert 99 < context.remaining() <= 100
    assert context.should_stop() is False
    assert TaskContext(claimed(), "", deadline=time.monotonic()).should_stop() is True


def test_an_interrupted_task_should_stop() -> None:
    context = TaskContext(claimed(), "")
    context.stop()
    assert context.should_stop() is True


@pytest.mark.parametrize("field", ["args", "kwargs", "metadata", "headers"])
def test_a_row_that_cannot_be_read_is_a_value_error(field: str) -> None:
    context = TaskContext(claimed(**{field: "{broken"}), "")
    with pytest.raises(ValueError, match=r"\S"):
        getattr(context, field)


@pytest.mark.parametrize("field", ["args", "kwargs", "metadata", "headers"])
@pytest.mark.parametrize("text", ["null", '"ab"', "5", "[]", '{"a": 1}'])
def test_json_of_another_kind_is_a_value_error(field: str, text: str) -> None:
    context = TaskContext(claimed(**{field: text}), "")
    if text[0] == ("[" if field == "args" else "{"):
        assert getattr(context, field) in ([], {"a": 1})
        return
    with pytest.raises(ValueError, match=f"the column {field} holds no JSON"):
        getattr(context, field)
