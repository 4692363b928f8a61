"""What a store tells of a task, of the clock, of the depth of its queues."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from django.db import connection, transaction
from django.test import override_settings

from django_jobs.ids import uuid7
from django_jobs.models import Task
from django_jobs.records import Demand
from django_jobs.states import Verdict
from django_jobs.store import Store, get_store
from tests.store.samples import (
    ERROR,
    OTHER_WORKER,
    WORKER,
    claim,
    claim_new,
    complete,
    insert,
    new_task,
    on_both,
    outcome,
)

pytestmark = on_both


def test_what_is_not_there_is_none(store: Store) -> None:
    assert store.fetch(str(uuid7())) is None


def test_a_waiting_task_is_told(store: Store) -> None:
    given = new_task(priority=5, metadata='{"a": 1}', delay=60.0)
    moment = store.insert([given])
    record = store.fetch(given.id)
    assert record is not None
    assert record[:9] == (
        given.id,
        "SCHEDULED",
        *given[1:3],
        5,
        *("[1]", "{}", '{"a": 1}', 3),
    )
    assert record.enqueued_at == moment
    assert record.run_after - moment == timedelta(seconds=60)
    assert record[13:] == (None, None, None, None, False, "", [], [], None)


def test_a_running_task_names_its_worker(store: Store) -> None:
    (task,) = claim_new(store)
    record = store.fetch(task.id)
    assert record is not None
    assert (record.state, record.attempt, record.worker_ids) == ("RUNNING", 1, [WORKER])
    assert record.last_attempted_at is not None


def test_a_result_is_told(store: Store) -> None:
    (task,) = claim_new(store)
    complete(store, task, return_value='{"b": 2}')
    record = store.fetch(task.id)
    assert record is not None
    assert (record.state, record.return_value) == ("SUCCESSFUL", '{"b": 2}')
    times = (record.enqueued_at, record.started_at, record.finished_at)
    assert list(times) == sorted(times)  # type: ignore[type-var]
    assert {each.tzinfo for each in times if each} == {UTC}


def test_errors_and_workers_of_the_attempts_that_count_are_told(store: Store) -> None:
    insert(store)
    told = [
        (Verdict.RETRY, WORKER, "1"),
        (Verdict.INTERRUPTED, OTHER_WORKER, "2"),
        (Verdict.CRASHED, OTHER_WORKER, "3"),
        (Verdict.SNOOZED, OTHER_WORKER, "4"),
        (Verdict.RETRY, WORKER, "5"),
    ]
    for verdict, worker, text in told:
        (task,) = claim(store, 1, worker)
        error = ERROR._replace(message=text)
        complete(store, task, verdict, worker, error=error)
    (task,) = claim(store)
    complete(store, task)
    record = store.fetch(task.id)
    assert record is not None
    assert [error.message for error in record.errors] == ["1", "3", "5"]
    assert record.worker_ids == [WORKER, OTHER_WORKER, WORKER, WORKER]
    assert record.attempt == len(record.worker_ids)


@pytest.mark.parametrize("verdict", Verdict)
def test_there_are_as_many_attempts_as_workers(store: Store, verdict: Verdict) -> None:
    (task,) = claim_new(store)
    complete(store, task, verdict, error=ERROR)
    record = store.fetch(task.id)
    assert record is not None
    assert record.attempt == len(record.worker_ids)


def test_a_dead_letter_is_told(store: Store) -> None:
    (task,) = claim_new(store)
    complete(store, task, Verdict.FAILED, error=ERROR)
    record = store.fetch(task.id)
    assert record is not None
    assert (record.state, record.reason) == ("FAILED", "attempts used up")
    assert (record.errors, record.worker_ids) == ([ERROR], [WORKER])


def test_the_depths_of_the_queues_are_counted(store: Store) -> None:
    claim_new(store, 2)
    insert(store, 3)
    insert(store, queue_name="b", delay=60.0)
    assert store.depths() == {
        ("default", "RUNNING"): 2,
        ("default", "READY"): 3,
        ("b", "SCHEDULED"): 1,
    }


# -- time zones --------------------------------------------------------------------


@pytest.fixture
def other_zone(store: Store) -> object:
    """Settings and a session that are far from UTC."""
    with override_settings(USE_TZ=False, TIME_ZONE="Asia/Tokyo"):
        connection.close()
        if connection.vendor == "mysql":
            with connection.cursor() as cursor:
                cursor.execute("SET time_zone = '-11:00'")
        yield
    connection.close()


@pytest.mark.usefixtures("other_zone")
def test_all_times_are_utc_whatever_the_settings_say(store: Store) -> None:
    moment = store.insert([new_task()])
    assert abs(moment - datetime.now(UTC)) < timedelta(seconds=60)
    assert abs(store.now() - moment) < timedelta(seconds=60)
    local = datetime.now(ZoneInfo("Asia/Tokyo"))
    over = local - timedelta(seconds=1)  # SQLite's clock tells milliseconds only
    insert(store, run_after=local + timedelta(hours=1), expires=over)
    insert(store, run_after=local - timedelta(hours=1), expires=over)
    assert store.next_due() == pytest.approx(3600, abs=60)
    assert [task.is_expired for task in claim(store)] == [False, True]


@pytest.mark.usefixtures("other_zone")
def test_the_times_of_a_run_are_utc_whatever_the_settings_say(store: Store) -> None:
    (task,) = claim_new(store)
    complete(store, task, retention=60.0)
    (other,) = claim_new(store)
    complete(store, other, Verdict.RETRY, delay=60.0, error=ERROR)
    for each in (task.id, other.id):
        record = store.fetch(each)
        assert record is not None
        times = [record.enqueued_at, record.started_at, record.run_after]
        assert all(
            time and abs(time - datetime.now(UTC)) < timedelta(seconds=90)
            for time in times
        )


# -- which database ----------------------------------------------------------------


class Replica:
    """A router that reads elsewhere."""

    def db_for_read(self, model: object, **hints: object) -> str:
        return "other"

    def db_for_write(self, model: object, **hints: object) -> str:
        return "default"


@override_settings(DATABASE_ROUTERS=["tests.store.test_reading.Replica"])
def test_a_replica_is_never_asked() -> None:
    store = get_store()
    (task,) = claim_new(store)
    assert store.cycle(WORKER, [outcome(task)], Demand(1)).stale == []
    record = store.fetch(task.id)
    assert record is not None
    assert record.state == "SUCCESSFUL"


def test_each_alias_has_a_store_of_its_own() -> None:
    insert(get_store("other"), 2)
    assert Task.objects.using("other").count() == 2
    assert not Task.objects.exists()
    assert get_store("other") is get_store("other") is not get_store("default")


def test_a_store_can_be_read_inside_a_transaction(store: Store) -> None:
    with transaction.atomic():
        (task_id,) = insert(store)
        assert store.fetch(task_id) is not None
