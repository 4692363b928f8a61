"""Many tasks end with as many results and nothing else."""

from __future__ import annotations

import pytest
from django.db import connection
from django.db.models import Max, Min

from django_jobs import enqueue_many
from django_jobs.models import Attempt, Result
from tests.processes import tasks
from tests.processes.conftest import StartWorker
from tests.processes.harness import census, finished, wait_for

pytestmark = pytest.mark.django_db(transaction=True)


def test_ten_thousand_tasks_end_with_ten_thousand_results(
    start_worker: StartWorker,
) -> None:
    enqueue_many([tasks.noop.s() for _ in range(10_000)])
    start_worker("--processes", "2")
    wait_for(finished(10_000), 60)
    assert census() == {"tasks": 0, "results": 10_000, "dead letters": 0}
    assert set(Result.objects.values_list("attempt", flat=True)) == {1}
    assert not Attempt.objects.exists()
    # From the first start to the last end; a quiet machine of 2 cores does 12,000/s
    # on PostgreSQL. Without batches it would be some hundred.
    times = Result.objects.aggregate(begin=Min("started_at"), end=Max("finished_at"))
    rate = 10_000 / (times["end"] - times["begin"]).total_seconds()
    assert rate > (2000 if connection.vendor == "postgresql" else 1000)


def test_two_workers_share_the_work(start_worker: StartWorker) -> None:
    for name in ("first", "second"):
        start_worker("--processes", "1", "--name", name)
    enqueue_many([tasks.sleep.s(0.002) for _ in range(1000)])
    wait_for(finished(1000), 60)
    assert Result.objects.values("worker_id").distinct().count() == 2
    assert set(Result.objects.values_list("attempt", flat=True)) == {1}
