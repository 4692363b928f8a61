"""A process is killed at every point, parent or child: nothing is lost or doubled."""

from __future__ import annotations

import signal
import subprocess
import sys
from datetime import timedelta

import pytest
from django.db import transaction
from django.utils import timezone

from django_jobs.failpoints import POINTS, VARIABLE
from django_jobs.models import Attempt, Maintenance, Queue, Result, Task
from tests.processes.failpoints import tasks
from tests.processes.failpoints.relay import IN_A_RUN, SLOTS, Relay
from tests.processes.harness import lines, wait_for
from tests.rows import result

pytestmark = [pytest.mark.faults, pytest.mark.matrix]

#: Who is struck.
PARENT, CHILD = "kill9:parent", "kill9:child"
#: What may happen to the workers of these tests, once each and when it is armed.
RULES = [(point, what) for point in POINTS for what in (PARENT, CHILD)]
#: Reached by a worker that starts, before it has a child (but for the last one).
AT_START = [
    *("register.before", "register.after"),
    *("prune.before", "prune.mid", "prune.after", "child.before_ready"),
]
#: Reached every so often, whether or not there are tasks.
AT_TIMES = [
    *("heartbeat.before", "heartbeat.after"),
    *("rescue.before", "rescue.mid", "rescue.after"),
]
#: How many signals it takes until a worker that stops is there.
AT_STOP = {
    "shutdown.draining": 1,
    "shutdown.interrupting": 2,
    "shutdown.killing": 3,
    "shutdown.flushing": 1,
    "shutdown.signing_off": 1,
}
AT_WORK = [name for name in POINTS if name not in {*AT_START, *AT_TIMES, *AT_STOP}]


def both(*points: str) -> list:
    return [
        pytest.param(point, what, id=f"{point}-{what.partition(':')[2]}")
        for point in points
        for what in (PARENT, CHILD)
    ]


@pytest.mark.parametrize(("point", "what"), both(*AT_WORK))
def test_a_kill_while_it_works(relay: Relay, point: str, what: str) -> None:
    batch = relay.prepare()
    relay.working()
    with transaction.atomic():
        batch.enqueue()
        relay.arm(point, what)
    relay.struck(point, what)
    if what == CHILD:
        assert (point in IN_A_RUN) <= relay.finish(batch) <= SLOTS
        return
    relay.is_gone(-signal.SIGKILL)
    batch.conserved()
    in_flight = batch.running()
    assert relay.finish(batch) == in_flight


@pytest.mark.parametrize(("point", "what"), both(*AT_TIMES))
def test_a_kill_while_tasks_run(relay: Relay, point: str, what: str) -> None:
    batch = relay.prepare()
    relay.working()
    batch.hold(2)
    with transaction.atomic():
        batch.leave_an_orphan()
        batch.enqueue()
        relay.arm(point, what)
    relay.struck(point, what)
    in_flight = 2
    if what == PARENT:
        relay.is_gone(-signal.SIGKILL)
        batch.conserved()
        in_flight = batch.running()
        assert in_flight >= 2
    batch.release()
    assert relay.finish(batch) == in_flight + 1  # the orphan


@pytest.mark.parametrize(
    ("point", "what"),
    [*((point, PARENT) for point in AT_START), (AT_START[-1], CHILD)],
)
def test_a_kill_while_it_starts(relay: Relay, point: str, what: str) -> None:
    batch = relay.prepare()
    relay.stop()
    batch.enqueue()
    keep_old_results()
    relay.arm(point, what)
    relay.start(ready=False)
    relay.struck(point, what)
    in_flight = 0
    if what == PARENT:
        relay.is_gone(-signal.SIGKILL)
        in_flight = batch.running()
    # Of the old ones all are there, with their attempts, or none.
    assert count_old() in [(3, 3), (0, 0)]
    Maintenance.objects.all().delete()  # it is time again to prune
    relay.working()
    wait_for(lambda: count_old() == (0, 0), words="old results are pruned")
    assert relay.finish(batch) == in_flight


OLD = [f"01981a2b-3c4d-7e5f-8a9b-{number:012x}" for number in range(3)]


def keep_old_results() -> None:
    """Put results into the table whose time is over, each with an attempt."""
    over = timezone.now() - timedelta(days=1)
    for number, key in enumerate(OLD):
        result(number, prune_at=over)
        Attempt.objects.create(
            task_id=key, number=1, verdict="retry", started_at=over, finished_at=over
        )


def count_old() -> tuple[int, int]:
    with transaction.atomic():
        results = Result.objects.filter(pk__in=OLD).count()
        return results, Attempt.objects.filter(task_id__in=OLD).count()


@pytest.mark.parametrize(("point", "what"), both(*AT_STOP))
def test_a_kill_while_it_stops(relay: Relay, point: str, what: str) -> None:
    batch = relay.prepare()
    worker = relay.working()
    batch.hold(2)
    batch.enqueue()
    relay.arm(point, what)
    for event in ["stopping", "interrupting", "killing"][: AT_STOP[point]]:
        worker.send(signal.SIGTERM)
        wait_for(lambda event=event: f"event={event} " in worker.output(), words=event)
    if point in ("shutdown.flushing", "shutdown.signing_off"):
        batch.release()
    relay.struck(point, what)
    batch.release()
    relay.is_gone(-signal.SIGKILL if what == PARENT else 0)
    batch.conserved()
    in_flight = batch.running()
    assert what == PARENT or in_flight == 0
    crashes = relay.finish(batch)
    if what == PARENT:
        assert crashes == in_flight
    elif point in ("shutdown.draining", "shutdown.interrupting"):
        assert 2 <= crashes <= SLOTS
    else:  # nothing ran, or the worker was about to kill it itself
        assert crashes == 0


def test_a_worker_that_was_killed_at_no_point_leaves_nothing(relay: Relay) -> None:
    batch = relay.prepare()
    relay.working()
    batch.enqueue()
    assert relay.finish(batch) == 0
    relay.stop()


# -- in the process that enqueues ------------------------------------------------------

ENQUEUE = """
import sys
import django
django.setup()
from django.db import transaction
from django_jobs.models import Queue
from tests.processes.failpoints.tasks import plain
how, path = sys.argv[1:]
if how == "alone":
    print(plain.enqueue(path).id)
else:
    with transaction.atomic():
        Queue.objects.create(name="business")
        print(plain.using(on_commit=how == "at the end").enqueue(path).id)
"""


@pytest.mark.parametrize(
    ("point", "how", "is_there"),
    [
        ("enqueue.before_insert", "alone", False),
        ("enqueue.after_insert", "alone", True),
        ("enqueue.after_commit", "alone", True),
        ("enqueue.before_insert", "in a transaction", False),
        ("enqueue.after_insert", "in a transaction", False),
        ("enqueue.after_commit", "in a transaction", True),
        # What waits for a commit waits in memory.
        ("enqueue.deferred", "at the end", False),
        ("enqueue.after_insert", "at the end", True),
        ("enqueue.after_commit", "at the end", True),
    ],
)
def test_a_kill_while_it_enqueues(
    relay: Relay, point: str, how: str, is_there: bool
) -> None:
    batch = relay.prepare()
    done = subprocess.run(
        [sys.executable, "-c", ENQUEUE, how, str(batch.audit)],
        env={**relay.env, VARIABLE: f"{point}=kill9"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    has_business = Queue.objects.filter(name="business").exists()
    if how == "in a transaction":
        assert has_business == is_there
    else:
        assert has_business == (how == "at the end")
    Queue.objects.all().delete()
    batch.acked = {
        str(pk): tasks.plain.name
        for model in (Task, Result)
        for pk in model.objects.values_list("pk", flat=True)
    }
    assert bool(batch.acked) == is_there
    assert relay.finish(batch) == 0
    assert len(lines(batch.audit)) == is_there
