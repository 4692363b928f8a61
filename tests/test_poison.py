"""Values that databases refuse or change: refused before any SQL, or kept as they are.

The caller's transaction stays usable either way: on PostgreSQL an error of the database
would be the end of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from django_jobs import enqueue_many
from django_jobs.exceptions import EnqueueError, InvalidArguments
from django_jobs.models import Queue, Task
from django_jobs.results import fetch_result
from tests.processes.oddities import KEPT, REFUSED, give_back

pytestmark = pytest.mark.django_db


@contextmanager
def _refused_before_any_sql(*errors: type[Exception]) -> Iterator[Any]:
    """Expect an error in the middle of a transaction of the caller's, which goes on."""
    with transaction.atomic():
        Queue.objects.create(name="before")
        queries = CaptureQueriesContext(connection)
        with queries, pytest.raises(errors) as caught:
            yield caught
        assert queries.captured_queries == []
        Queue.objects.create(name="after")
    assert Queue.objects.count() == 2
    assert not Task.objects.exists()


#: What the error says of the place.
WHERE = {"args": "args[0]", "kwargs": "more", "many": "args[0]", "metadata": "metadata"}


@pytest.mark.parametrize("place", WHERE)
@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_kept_is_refused_before_any_sql(kind: str, place: str) -> None:
    make, words = REFUSED[kind]
    with _refused_before_any_sql(EnqueueError, ValueError) as caught:
        if place == "args":
            give_back.enqueue([1, make()])
        elif place == "kwargs":
            give_back.enqueue(1, more={"a": make()})
        elif place == "many":
            enqueue_many([give_back.s(1), give_back.s(make())])
        else:
            give_back.using(metadata={"a": make()}).enqueue(1)
    assert words in str(caught.value)
    assert WHERE[place] in str(caught.value)


@pytest.mark.parametrize("kind", KEPT)
def test_what_a_database_would_change_is_kept(kind: str) -> None:
    value, expected = KEPT[kind]
    with transaction.atomic():
        task = give_back.using(metadata={"value": value})
        results = [task.enqueue(value, **{"a\0\ud800\x1b[31m": value})]
        results += enqueue_many([task.s(value), task.s(value)])
        Queue.objects.create(name="after")
    for result in results:
        stored = fetch_result(result.id)
        # By their texts: 1, 1.0 and True are equal.
        assert repr(stored.args) == repr([expected])
        assert repr(stored.metadata) == repr({"value": expected})
    assert repr(fetch_result(results[0].id).kwargs["a\0\ud800\x1b[31m"]) == repr(
        expected
    )
    assert all(map(str.isprintable, Task.objects.values_list("summary", flat=True)))


EARLIEST = datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14)))
LATEST = datetime(9999, 12, 31, 23, 59, tzinfo=timezone(timedelta(hours=-12)))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *((option, EARLIEST) for option in ("run_after", "expires")),
        *((option, LATEST) for option in ("run_after", "expires")),
        *((option, datetime(2026, 1, 1)) for option in ("run_after", "expires")),
        *((option, timedelta.max) for option in ("run_after", "expires")),
        *((option, 1e300) for option in ("run_after", "expires", "time_limit")),
        *((option, 10**400) for option in ("run_after", "expires", "time_limit")),
        *((option, float("nan")) for option in ("run_after", "expires", "time_limit")),
        *((option, float("inf")) for option in ("run_after", "expires", "time_limit")),
        *((option, -1) for option in ("time_limit", "max_attempts")),
        *((option, 2**63) for option in ("priority", "max_attempts")),
        *((option, 2**15) for option in ("priority", "max_attempts")),
        *(("queue_name", name) for name in ("", "a\0b", "\ud800", "x" * 101)),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_an_option_that_no_database_keeps_is_refused_before_any_sql(
    option: str, value: Any
) -> None:
    with _refused_before_any_sql(EnqueueError, ValueError, TypeError) as caught:
        give_back.using(**{option: value}).enqueue(1)
    assert option in str(caught.value) or "queue" in str(caught.value)


def test_the_widest_times_that_all_databases_take_are_kept() -> None:
    for value in (datetime(1970, 1, 2, tzinfo=UTC), datetime(9899, 12, 30, tzinfo=UTC)):
        expires = value + timedelta(hours=1)
        result = give_back.using(run_after=value, expires=expires).enqueue(1)
        stored = Task.objects.get(pk=result.id)
        assert stored.expires == expires
        # Never before now, so that the promised order holds.
        assert stored.run_after == max(value, stored.enqueued_at)


def test_a_group_of_ten_thousand_is_one_insert_or_none() -> None:
    results = enqueue_many([give_back.s(number) for number in range(10_000)])
    assert Task.objects.count() == len(results) == 10_000
    with pytest.raises(InvalidArguments):
        enqueue_many([*(give_back.s(1) for _ in range(100)), give_back.s(object())])
    assert Task.objects.count() == 10_000
