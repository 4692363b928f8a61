"""What people do to the queue, as plain values."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from django.db import transaction
from django.test import override_settings

from django_jobs import TaskNotFound, control, fetch_result
from django_jobs.models import DeadLetter, Result, Task
from django_jobs.records import ErrorRecord
from django_jobs.states import Reason, Verdict
from django_jobs.store import get_store
from tests.sampleapp import tasks
from tests.sampleapp.hands import Hands

pytestmark = pytest.mark.django_db

ERROR = ErrorRecord("builtins.OSError", "no route", "Traceback: no route", "0" * 16)


def dead_letter() -> str:
    result = tasks.add.enqueue(1)
    Hands().run(Verdict.FAILED, reason=Reason.GAVE_UP, error=ERROR, log="last words")
    return result.id


def test_tasks_are_revoked_wherever_they_are() -> None:
    waiting, done = tasks.add.using(run_after=60).enqueue(1), tasks.add.enqueue(2)
    Hands().run()
    running = tasks.add.enqueue(3)
    Hands().claim()
    answers = control.revoke(
        [UUID(waiting.id), done.id, running.id, str(uuid4()), "no id"]
    )
    assert answers == {
        waiting.id: "revoked",
        done.id: "finished",
        running.id: "requested",
    }
    assert Result.objects.get(pk=waiting.id).state == "REVOKED"


def test_dead_letters_go_back_to_work_under_their_ids() -> None:
    key, done = dead_letter(), tasks.add.enqueue(2)
    Hands().run()
    assert control.requeue([key, done.id, "no id"]) == [key]
    assert Task.objects.get().state == "READY"
    assert fetch_result(key).errors == []
    assert not DeadLetter.objects.exists()


def test_workers_are_woken_when_tasks_are_requeued(
    monkeypatch: pytest.MonkeyPatch, django_capture_on_commit_callbacks: object
) -> None:
    woken: list[bool] = []
    dialect = type(get_store())
    monkeypatch.setattr(dialect, "can_notify", True)
    monkeypatch.setattr(
        dialect, "notify", lambda store: woken.append(store.connection.in_atomic_block)
    )
    with django_capture_on_commit_callbacks(execute=True):  # type: ignore[operator]
        control.requeue([dead_letter()])
    assert woken == [], "not in the transaction of a test case"


@pytest.mark.django_db(transaction=True)
def test_workers_are_woken_after_the_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    key = dead_letter()
    woken: list[bool] = []
    dialect = type(get_store())
    monkeypatch.setattr(dialect, "can_notify", True)
    monkeypatch.setattr(
        dialect, "notify", lambda store: woken.append(store.connection.in_atomic_block)
    )
    with transaction.atomic():
        control.requeue([key])
        assert woken == []
    assert woken == [False]
    control.requeue([key])
    assert woken == [False], "nothing was requeued"


def test_pruning_is_by_retention() -> None:
    tasks.add.enqueue(1)
    Hands().run(retention=0.0)
    kept = tasks.add.enqueue(2)
    Hands().run(retention=3600.0)
    assert control.prune() == 1
    assert fetch_result(kept.id).is_finished


def test_pruning_is_by_age_on_demand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "_PRUNED_AT_ONCE", 2)
    for number in range(5):
        tasks.add.enqueue(number)
        Hands().run()
    dead_letter()
    assert control.prune(older_than=timedelta(days=1)) == 0
    assert control.prune(older_than=0) == 6


def test_tasks_are_listed_from_all_tables_newest_first() -> None:
    ids = [dead_letter(), tasks.add.enqueue(2).id]
    Hands().run()
    ids.append(tasks.send.enqueue("a@example.org", "hunter2").id)
    lines = control.list_tasks()
    assert [line.id for line in lines] == ids[::-1]
    assert [line.state for line in lines] == ["READY", "SUCCESSFUL", "FAILED"]
    assert [line.reason for line in lines] == ["", "", Reason.GAVE_UP]
    assert lines[0].summary == "'a@example.org', ***"
    assert (lines[0].priority, lines[0].queue_name) == (10, "mail")
    assert (lines[0].attempt, lines[0].max_attempts) == (0, 5)
    assert lines[0].enqueued_at.utcoffset() == timedelta(0)
    assert lines[0].finished_at is None
    assert lines[1].finished_at is not None
    assert [line.id for line in control.list_tasks(limit=2)] == [ids[2], ids[1]]


def test_a_list_can_be_narrowed() -> None:
    key, other = dead_letter(), tasks.send.enqueue("x").id

    def ids(**filters: str) -> list[str]:
        return [line.id for line in control.list_tasks(**filters)]  # type: ignore[arg-type]

    assert ids(state="failed") == [key]
    assert ids(state="READY") == [other]
    assert ids(state="SUCCESSFUL") == []
    assert ids(queue="mail") == ids(name="sample.send") == [other]
    assert ids(queue="default", name=tasks.add.name) == [key]
    with pytest.raises(ValueError, match="NONSENSE"):
        ids(state="nonsense")


def test_a_task_is_shown_with_its_attempts() -> None:
    key = dead_letter()
    details = control.show(UUID(key))
    assert (details.task.id, details.task.state) == (key, "FAILED")
    (attempt,) = details.attempts
    assert (attempt.number, attempt.verdict) == (1, Verdict.FAILED)
    assert (attempt.worker_name, attempt.log) == ("hands", "last words")
    assert (attempt.exception_class, attempt.message) == (
        "builtins.OSError",
        "no route",
    )
    assert attempt.worker_id == details.task.worker_ids[0]


@pytest.mark.parametrize("task_id", ["no id", "01a1fe23-c251-7304-b2e7-f95c27827c59"])
def test_a_task_that_there_is_not_cannot_be_shown(task_id: str) -> None:
    with pytest.raises(TaskNotFound, match="no task has the id"):
        control.show(task_id)


def test_the_status_of_an_empty_queue_is_empty() -> None:
    status = control.status()
    assert (status.queues, status.workers) == ({}, [])
    assert (status.dead_letters, status.oldest_ready) == (0, None)


def test_the_status_counts_what_there_is() -> None:
    dead_letter()
    tasks.add.enqueue(1)
    tasks.add.using(run_after=60).enqueue(2)
    tasks.send.enqueue("x")
    status = control.status()
    assert status.queues == {
        "default": {"READY": 1, "SCHEDULED": 1},
        "mail": {"READY": 1},
    }
    assert status.dead_letters == 1
    assert status.oldest_ready is not None
    assert 0 <= status.oldest_ready < 60
    (worker,) = status.workers
    assert (worker.name, worker.host, worker.is_alive) == ("hands", "host", True)


@pytest.mark.django_db(databases=["default", "other"])
def test_control_works_on_the_queue_s_database() -> None:
    with override_settings(DJANGO_JOBS={"DATABASE": "other"}):
        tasks.add.enqueue(1)
        assert len(control.list_tasks()) == 1
    assert control.list_tasks() == []
