"""What else can happen at a point: processes stop, errors come, connections are cut."""

from __future__ import annotations

import os
import signal
import time
from datetime import timedelta
from pathlib import Path

import pytest
from django.db import transaction
from django.utils import timezone

from django_jobs.models import Attempt, Result, Task, Worker
from django_jobs.worker.dispatcher import LONG
from tests.processes.failpoints import tasks
from tests.processes.failpoints.batch import KINDS
from tests.processes.failpoints.relay import IN_A_RUN, SLOTS, Relay
from tests.processes.harness import wait_for

pytestmark = [pytest.mark.faults, pytest.mark.matrix]

#: What a worker survives as a whole: no process of it ends.
PARENT_GOES_ON = [
    *(("claim.before", "oserror"), ("claim.after_update", "raise")),
    *(("claim.after_commit", "raise"), ("complete.before", "raise")),
    *(("complete.after_insert", "raise"), ("complete.before_commit", "oserror")),
    *(("complete.after_commit", "raise"), ("heartbeat.before", "oserror")),
    *(("heartbeat.after", "raise"), ("promote.before", "oserror")),
    *(("promote.after", "raise"), ("claim.after_commit", "sleep(0.3)")),
    *(("dispatch.after_send", "sleep(0.3)"), ("complete.before_commit", "sleep(0.3)")),
    *((point, "dbdrop") for point in ("claim.before", "claim.after_update")),
    *((point, "dbdrop") for point in ("claim.after_commit", "complete.before")),
    *(
        (point, "dbdrop")
        for point in ("complete.after_insert", "complete.after_commit")
    ),
    *((point, "dbdrop") for point in ("complete.before_commit", "heartbeat.before")),
    *((point, "dbdrop") for point in ("heartbeat.after", "promote.before")),
]
#: What costs one attempt of the task that was there.
CHILD_GOES_ON = [
    *(("child.before_run", "raise"), ("child.mid_run", "raise")),
    *(("child.mid_run", "oserror"), ("child.after_run", "raise")),
    *(("atomic.before_complete", "raise"), ("atomic.after_complete", "oserror")),
    *(("atomic.after_commit", "raise"), ("enqueue.before_insert", "oserror")),
    *(("enqueue.after_insert", "raise"), ("enqueue.after_commit", "raise")),
    *(("enqueue.deferred", "raise"), ("child.before_send", "sleep(0.3)")),
    *((point, "dbdrop") for point in ("atomic.before_complete", "child.mid_run")),
    *((point, "dbdrop") for point in ("atomic.after_complete", "atomic.after_commit")),
    *((point, "dbdrop") for point in ("enqueue.before_insert", "enqueue.after_insert")),
    *((point, "dbdrop") for point in ("enqueue.after_commit", "enqueue.deferred")),
]
#: What ends the child.
CHILD_ENDS = [
    *(("child.before_ready", "raise"), ("child.received", "raise")),
    *(("child.before_send", "raise"), ("child.after_send", "oserror")),
    *(("child.after_run", "exit"), ("child.mid_run", "segfault")),
]
#: What ends the worker, and with which status.
WORKER_ENDS = [
    ("complete.before_commit", "exit", 0),
    ("dispatch.after_send", "segfault", -signal.SIGSEGV),
    ("dispatch.before_send", "raise", 1),
    ("complete.received", "oserror", 1),
    ("claim.after_update", "exit", 0),
]
STOPS = [
    *(("child.mid_run", "stop"), ("claim.after_update", "stop")),
    *(("dispatch.after_send", "stop"), ("rescue.mid", "dbdrop")),
]
RULES = [
    *(*PARENT_GOES_ON, *CHILD_GOES_ON, *CHILD_ENDS, *STOPS),
    *((point, what) for point, what, _ in WORKER_ENDS),
]


@pytest.mark.parametrize(("point", "what"), PARENT_GOES_ON)
def test_the_worker_goes_on_and_no_run_is_lost(
    relay: Relay, point: str, what: str
) -> None:
    batch = relay.prepare()
    worker = relay.working()
    children = worker.children(2)
    with transaction.atomic():
        batch.enqueue()
        relay.arm(point, what)
    # Where rows are moved, a child may be that completes an atomic task.
    assert relay.struck(point, what) in [worker.pid, *children]
    assert relay.finish(batch) == 0
    assert worker.children(2) == children
    assert set(_verdicts()) == {"failed", "retry"}  # of those that always do that


@pytest.mark.parametrize(("point", "what"), CHILD_GOES_ON)
def test_the_child_goes_on_and_an_attempt_is_lost_at_most(
    relay: Relay, point: str, what: str
) -> None:
    batch = relay.prepare()
    worker = relay.working()
    children = worker.children(2)
    with transaction.atomic():
        batch.enqueue()
        relay.arm(point, what)
    assert relay.struck(point, what) in children
    assert relay.finish(batch) == 0
    assert worker.children(2) == children
    assert _verdicts().count("retry") in (1, 2)


@pytest.mark.parametrize(("point", "what"), CHILD_ENDS)
def test_the_child_ends_and_another_runs_its_tasks(
    relay: Relay, point: str, what: str
) -> None:
    batch = relay.prepare()
    if point == "child.before_ready":
        relay.stop()
        relay.arm(point, what)
        relay.start(ready=False)
        batch.enqueue()
    else:
        relay.working()
        with transaction.atomic():
            batch.enqueue()
            relay.arm(point, what)
    dead = relay.struck(point, what)
    assert (point in IN_A_RUN) <= relay.finish(batch) <= SLOTS
    assert dead not in relay.working().children(2)


@pytest.mark.parametrize(("point", "what", "code"), WORKER_ENDS)
def test_the_worker_ends_and_another_runs_its_tasks(
    relay: Relay, point: str, what: str, code: int
) -> None:
    batch = relay.prepare()
    relay.working()
    with transaction.atomic():
        batch.enqueue()
        relay.arm(point, what)
    relay.struck(point, what)
    relay.is_gone(code)
    batch.conserved()
    in_flight = batch.running()
    assert relay.finish(batch) == in_flight


def test_a_rescue_that_was_cut_off_is_repeated(relay: Relay) -> None:
    batch = relay.prepare()
    relay.working()
    with transaction.atomic():
        batch.leave_an_orphan()
        batch.enqueue()
        relay.arm("rescue.mid", "dbdrop")
    relay.struck("rescue.mid", "dbdrop")
    assert relay.finish(batch) == 1


# -- stopped, and sometimes woken again ----------------------------------------------


def is_stopped(pid: int) -> bool:
    return _state(pid) == "T"


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def stop_a_child(relay: Relay, **options: float) -> tuple[int, str]:
    """Have a child stopped in a task of its own; return both ids."""
    result = tasks.plain.using(**options).enqueue(str(relay.folder / "stopped"))
    pid = relay.struck("child.mid_run", "stop")
    wait_for(lambda: is_stopped(pid), words="the child is stopped")
    # From now on the parent sends nothing to wait behind it.
    until = time.monotonic() + 2 * LONG
    wait_for(lambda: time.monotonic() > until)
    return pid, result.id


def test_a_stopped_child_holds_up_only_what_it_has(relay: Relay) -> None:
    batch = relay.prepare()
    relay.working()
    relay.arm("child.mid_run", "stop")
    pid, task_id = stop_a_child(relay)
    try:
        batch.enqueue()
        # Its slot is taken; for coroutines it has others, and nobody knows.
        most = 1 + KINDS[tasks.coroutine]
        others = Task.objects.exclude(pk=task_id).exclude(name=tasks.coroutine.name)
        wait_for(
            lambda: batch.is_over(besides=most) and not others.exists(),
            words="all others are done",
        )
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_for(lambda: not Task.objects.exists())
    assert not Attempt.objects.filter(task_id=task_id).exists()
    Result.objects.get(pk=task_id).delete()
    assert batch.verify() == 0


def test_a_stopped_child_is_killed_when_its_time_is_over(relay: Relay) -> None:
    relay.prepare()
    worker = relay.working()
    relay.arm("child.mid_run", "stop")
    pid, task_id = stop_a_child(relay, time_limit=0.5)
    wait_for(lambda: not Path(f"/proc/{pid}").exists(), words="it was killed")
    wait_for(lambda: Attempt.objects.filter(task_id=task_id).exists())
    Task.objects.update(run_after=timezone.now())
    wait_for(lambda: not Task.objects.exists())
    result = Result.objects.get()
    assert (result.state, result.attempt, result.crashes) == ("SUCCESSFUL", 2, 0)
    assert len(worker.children(2)) == 2


@pytest.mark.parametrize("point", ["claim.after_update", "dispatch.after_send"])
def test_a_worker_that_was_stopped_for_a_moment_goes_on(
    relay: Relay, point: str
) -> None:
    batch = relay.prepare()
    worker = relay.working()
    with transaction.atomic():
        batch.enqueue()
        relay.arm(point, "stop")
    relay.struck(point, "stop")
    wait_for(lambda: is_stopped(worker.pid))
    worker.send(signal.SIGCONT)
    assert relay.finish(batch) == 0
    assert "event=lease_lost" not in worker.output()


@pytest.mark.parametrize("point", ["claim.after_update", "dispatch.after_send"])
def test_a_worker_that_was_stopped_can_be_killed(relay: Relay, point: str) -> None:
    batch = relay.prepare()
    worker = relay.working()
    with transaction.atomic():
        batch.enqueue()
        relay.arm(point, "stop")
    relay.struck(point, "stop")
    wait_for(lambda: is_stopped(worker.pid))
    worker.send(signal.SIGKILL)
    relay.is_gone(-signal.SIGKILL)
    in_flight = batch.running()
    assert relay.finish(batch) == in_flight


def test_a_worker_that_was_stopped_beyond_its_lease_completes_nothing(
    relay: Relay,
) -> None:
    batch = relay.prepare()
    late = relay.working()
    with transaction.atomic():
        batch.enqueue()
        relay.arm("dispatch.after_send", "stop")
    relay.struck("dispatch.after_send", "stop")
    wait_for(lambda: is_stopped(late.pid))
    in_flight = batch.running()
    # As if the lease had run out: the six seconds are spared.
    Worker.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    relay.start()
    try:
        # Its children went on, and completed what was atomic.
        crashes = relay.finish(batch)
        assert 0 < crashes <= in_flight
        ends = set(Result.objects.values_list("pk", "lease", "worker_id"))
        late.send(signal.SIGCONT)
        wait_for(lambda: "event=lease_lost" in late.output(), words=str(late.log))
        assert late.stop() == 0, late.output()
        assert set(Result.objects.values_list("pk", "lease", "worker_id")) == ends
        assert batch.verify() == crashes
    finally:
        late.kill_everything()


def _verdicts() -> list[str]:
    return list(Attempt.objects.values_list("verdict", flat=True))
