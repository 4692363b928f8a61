"""Tasks run: kinds, order, queues, times, and how many at once."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path

import pytest
from django.db import transaction

from django_jobs import enqueue_many
from django_jobs.definitions import TaskDefinition
from django_jobs.models import Attempt, DeadLetter, Maintenance, Result, Task
from django_jobs.states import State
from django_jobs.store import get_store
from tests.processes import tasks
from tests.processes.conftest import StartWorker
from tests.processes.harness import census, finished, lines, wait_for

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_result_comes_back(start_worker: StartWorker) -> None:
    start_worker("--processes", "1")
    result = tasks.add.enqueue(2, right=3)
    assert result.get(timeout=20) == 5
    assert result.status == State.SUCCESSFUL
    assert result.attempts == 1
    assert result.enqueued_at <= result.started_at <= result.finished_at


def test_what_was_enqueued_before_the_worker_started_runs(
    start_worker: StartWorker,
) -> None:
    results = enqueue_many([tasks.add.s(number, 1) for number in range(50)])
    start_worker("--processes", "2")
    assert [result.get(timeout=20) for result in results] == list(range(1, 51))


def test_nothing_runs_before_the_commit(start_worker: StartWorker, audit: Path) -> None:
    start_worker("--processes", "1")
    with transaction.atomic():
        tasks.write.enqueue(str(audit), "inside")
        seen = tasks.write.using(on_commit=True).enqueue(str(audit), "after")
        assert lines(audit) == []
    seen.get(timeout=20)
    wait_for(finished(2))
    assert sorted(lines(audit)) == ["after", "inside"]


def test_a_rolled_back_task_never_runs(start_worker: StartWorker, audit: Path) -> None:
    start_worker("--processes", "1")
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        tasks.write.enqueue(str(audit), "never")
        raise ZeroDivisionError
    tasks.write.enqueue(str(audit), "ever").get(timeout=20)
    assert lines(audit) == ["ever"]


def test_burst_runs_all_that_is_due_and_exits_0(
    start_worker: StartWorker, audit: Path
) -> None:
    enqueue_many([tasks.noop.s() for _ in range(300)])
    tasks.noop.using(run_after=timedelta(hours=1)).enqueue()
    worker = start_worker("--burst", "--processes", "2", ready=False)
    assert worker.wait() == 0
    assert census() == {"tasks": 1, "results": 300, "dead letters": 0}


def test_burst_with_nothing_to_do_exits_0(start_worker: StartWorker) -> None:
    assert start_worker("--burst", ready=False).wait() == 0


def test_higher_priority_runs_first_then_the_time_due(
    start_worker: StartWorker, audit: Path
) -> None:
    for line, priority in [("a", 0), ("b", 50), ("c", -3), ("d", 50), ("e", 100)]:
        tasks.write.using(priority=priority).enqueue(str(audit), line)
    start_worker("--burst", "--processes", "1", ready=False).wait()
    assert lines(audit) == ["e", "b", "d", "a", "c"]


def test_queues_are_served_in_strict_order(
    start_worker: StartWorker, audit: Path
) -> None:
    for line, queue, priority in [("1", "low", 100), ("2", "high", 0), ("3", "mid", 9)]:
        tasks.write.using(queue_name=queue, priority=priority).enqueue(str(audit), line)
    options = ("--queues", "high,mid,low", "--processes", "1", "--burst")
    start_worker(*options, ready=False).wait()
    assert lines(audit) == ["2", "3", "1"]


def test_only_the_named_queues_are_served(start_worker: StartWorker) -> None:
    for queue in ("mail", "video", "default"):
        tasks.noop.using(queue_name=queue).enqueue()
    start_worker("--queues", "mail", "--burst", ready=False).wait()
    assert Result.objects.get().queue_name == "mail"
    start_worker("--exclude-queues", "video", "--burst", ready=False).wait()
    assert Task.objects.get().queue_name == "video"


def test_weighted_queues_all_get_their_share(
    start_worker: StartWorker, audit: Path
) -> None:
    enqueue_many(
        [
            tasks.sleep.using(queue_name=queue).s(0.002, str(audit), queue)
            for queue in ("often", "seldom")
            for _ in range(120)
        ]
    )
    options = ("--queues", "often:5,seldom:1", "--processes", "1", "--burst")
    start_worker(*options, ready=False).wait()
    first = [line.split()[1] for line in lines(audit) if line.startswith("start")][:100]
    # Not before, not behind: both get something while both have something.
    assert 0 < first.count("seldom") < first.count("often")


def test_a_delayed_task_starts_within_100_ms_of_its_time(
    start_worker: StartWorker,
) -> None:
    start_worker("--processes", "1")
    tasks.noop.enqueue().get(timeout=20)  # the project is loaded
    delays = [0.3, 0.55, 0.9]
    results = [tasks.noop.using(run_after=delay).enqueue() for delay in delays]
    for result in results:
        result.get(timeout=20)
        late = result.started_at - result.run_after
        assert timedelta() <= late < timedelta(seconds=0.1)


def test_an_expired_task_is_not_run(start_worker: StartWorker, audit: Path) -> None:
    result = tasks.write.using(expires=0.05).enqueue(str(audit), "too late")
    wait_for(lambda: _is_over(result.id))
    start_worker("--burst", ready=False).wait()
    result.refresh()
    assert result.status == State.EXPIRED
    assert result.attempts == 0
    assert lines(audit) == []


def _is_over(task_id: str) -> bool:
    return Task.objects.get(id=task_id).expires < get_store().now()


def test_a_hundred_sleeping_coroutines_take_the_time_of_one(
    start_worker: StartWorker,
) -> None:
    start_worker("--processes", "1", "--coroutines", "100")
    tasks.async_sleep.enqueue(0.01).get(timeout=20)
    begin = time.monotonic()
    results = enqueue_many([tasks.async_sleep.s(0.5) for _ in range(100)])
    for result in results:
        result.get(timeout=20)
    assert time.monotonic() - begin < 5  # one after the other they take 50 s


def test_threads_of_one_process_run_side_by_side(start_worker: StartWorker) -> None:
    start_worker("--processes", "1", "--threads", "4")
    results = enqueue_many([tasks.which_thread.s(0.3) for _ in range(4)])
    assert len({result.get(timeout=20) for result in results}) == 4


def test_a_long_task_does_not_hold_back_short_ones(
    start_worker: StartWorker, audit: Path
) -> None:
    start_worker("--processes", "2")
    # The worker learns that they are short, and so sends them ahead.
    for result in enqueue_many([tasks.sleep.s(0, str(audit)) for _ in range(200)]):
        result.get(timeout=20)
    long = tasks.sleep.using(priority=1).enqueue(10, str(audit), "long")
    begin = time.monotonic()
    short = enqueue_many([tasks.sleep.s(0, str(audit)) for _ in range(100)])
    for result in short:
        result.get(timeout=9)
    assert time.monotonic() - begin < 5
    long.refresh()
    assert long.status == State.RUNNING


@pytest.mark.parametrize(
    ("slots", "pause"),
    [("--threads", tasks.sleep), ("--coroutines", tasks.async_sleep)],
)
def test_a_partly_busy_process_claims_for_its_free_slots(
    start_worker: StartWorker, slots: str, pause: TaskDefinition[..., str]
) -> None:
    start_worker("--processes", "1", slots, "4")
    enqueue_many([pause.s(30) for _ in range(3)])
    wait_for(lambda: Task.objects.filter(state=State.RUNNING).count() == 3)
    for _ in range(20):
        assert pause.enqueue(0).get(timeout=2) == "slept"
    assert Task.objects.filter(state=State.RUNNING).count() == 3


def test_claimed_tasks_that_cannot_start_soon_go_back(
    start_worker: StartWorker,
) -> None:
    start_worker("--processes", "1")
    for result in enqueue_many([tasks.sleep.s(0) for _ in range(100)]):
        result.get(timeout=20)
    enqueue_many([tasks.sleep.s(30) for _ in range(20)])
    wait_for(lambda: Task.objects.filter(state=State.RUNNING).count() == 1, 10)
    waiting = Task.objects.filter(state=State.READY)
    assert set(waiting.values_list("attempt", flat=True)) == {0}


def test_an_unknown_task_waits_for_a_worker_that_knows_it(
    start_worker: StartWorker,
) -> None:
    result = tasks.noop.enqueue()
    Task.objects.filter(id=result.id).update(name="app.tasks.of_the_next_release")
    worker = start_worker("--processes", "1")
    wait_for(lambda: Task.objects.get().unknown_since)
    task = Task.objects.get()
    assert (task.state, task.attempt, task.worker_id) == (State.SCHEDULED, 0, None)
    assert worker.stop() == 0


def test_max_tasks_ends_the_worker_after_so_many(start_worker: StartWorker) -> None:
    enqueue_many([tasks.noop.s() for _ in range(30)])
    worker = start_worker("--max-tasks", "10", "--processes", "1", ready=False)
    assert worker.wait() == 0
    assert census() == {"tasks": 20, "results": 10, "dead letters": 0}


def test_processes_are_recycled_by_count(
    start_worker: StartWorker, audit: Path
) -> None:
    start_worker("--processes", "1", "--recycle-after", "5")
    enqueue_many([tasks.who.s(str(audit)) for _ in range(20)])
    wait_for(finished(20))
    assert len(set(Result.objects.values_list("return_value", flat=True))) >= 3
    assert not Attempt.objects.exists()


@pytest.mark.parametrize("short", [0, 2])
def test_nobody_waits_for_the_coroutines_of_a_process_that_is_replaced(
    start_worker: StartWorker, audit: Path, short: int
) -> None:
    start_worker("--processes", "1", "--recycle-after", "3")
    enqueue_many([tasks.async_sleep.s(60, str(audit)) for _ in range(3 - short)])
    wait_for(lambda: len(lines(audit)) == 3 - short)
    for _ in range(short + 2):
        tasks.noop.enqueue().get(timeout=10)


def test_processes_are_recycled_by_memory(start_worker: StartWorker) -> None:
    start_worker("--processes", "1", "--max-memory", "150")
    small = tasks.grow.enqueue(1).get(timeout=20)
    assert tasks.grow.enqueue(200).get(timeout=20) == small
    assert tasks.grow.enqueue(1).get(timeout=20) != small
    assert not DeadLetter.objects.exists()


def test_progress_and_metadata_are_seen_while_it_runs(
    start_worker: StartWorker, audit: Path
) -> None:
    start_worker("--processes", "1")
    result = tasks.report_progress.enqueue(str(audit))
    wait_for(lambda: lines(audit))
    assert '"current":1' in (Task.objects.get().progress or "").replace(" ", "")
    result.refresh()
    assert result.metadata == {"seen": True}
    result.get(timeout=20)
    assert result.metadata == {"seen": True}


def test_a_worker_prunes_what_is_past_its_retention(start_worker: StartWorker) -> None:
    enqueue_many([tasks.noop.s() for _ in range(30)])
    start_worker("--burst", "--processes", "1", ready=False).wait()
    old = Result.objects.order_by("pk")[:20].values_list("pk", flat=True)
    past = get_store().now() - timedelta(seconds=1)
    Result.objects.filter(pk__in=list(old)).update(prune_at=past)
    Maintenance.objects.all().delete()  # the first worker may have had a turn
    start_worker("--processes", "1")
    wait_for(lambda: Result.objects.count() == 10)


def test_a_project_that_takes_long_to_load_costs_no_lease(
    start_worker: StartWorker,
) -> None:
    worker = start_worker(
        "--processes",
        "1",
        JOBS_LEASE="3",
        JOBS_HEARTBEAT="0.3",
        JOBS_TEST_IMPORT="tests.processes.slow_to_load",
    )
    assert tasks.add.enqueue(1, 1).get(timeout=20) == 2
    assert "event=lease_lost" not in worker.output()
