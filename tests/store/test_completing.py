"""Outcomes other than success: where each verdict sends a task, and what is kept."""

from __future__ import annotations

import random
import time
from datetime import timedelta
from typing import Any
from unittest.mock import Mock

import pytest
from django.db import DataError, OperationalError
from django.test import override_settings

from django_jobs.ids import uuid7
from django_jobs.models import Attempt, DeadLetter, Result, Task
from django_jobs.records import ClaimedTask, Demand, ErrorRecord
from django_jobs.states import RECORDED_VERDICTS, Reason, State, Verdict
from django_jobs.store import Store
from tests.store.samples import (
    ERROR,
    OTHER_WORKER,
    WORKER,
    claim,
    claim_new,
    complete,
    insert,
    new_worker,
    on_both,
    outcome,
    places,
    verdicts,
)

pytestmark = on_both

UNSUCCESSFUL = sorted(set(Verdict) - {Verdict.SUCCESSFUL, Verdict.EXPIRED})
#: Verdict -> state and counted attempts after the first run.
AFTERWARDS = {
    Verdict.SUCCESSFUL: ("SUCCESSFUL", 1),
    Verdict.REVOKED: ("REVOKED", 1),
    Verdict.EXPIRED: ("EXPIRED", 1),
    Verdict.FAILED: ("FAILED", 1),
    Verdict.RETRY: ("READY", 1),
    Verdict.CRASHED: ("READY", 1),
    Verdict.SNOOZED: ("READY", 0),
    Verdict.INTERRUPTED: ("READY", 0),
    Verdict.RELEASED: ("READY", 0),
    Verdict.UNKNOWN: ("READY", 0),
}


@pytest.mark.parametrize("verdict", Verdict)
def test_every_verdict_has_its_place(store: Store, verdict: Verdict) -> None:
    (task,) = claim_new(store)
    assert complete(store, task, verdict, error=ERROR) == []
    record = store.fetch(task.id)
    assert record is not None
    assert (record.state, record.attempt) == AFTERWARDS[verdict]
    assert len(places(task.id)) == 1
    assert verdicts(task.id) == [verdict] * (verdict in RECORDED_VERDICTS)


@pytest.mark.parametrize("verdict", [Verdict.EXPIRED, Verdict.REVOKED])
def test_what_never_started_has_no_attempt(store: Store, verdict: Verdict) -> None:
    (task,) = claim_new(store)
    Task.objects.update(last_attempted_at=store.now() - timedelta(hours=1))
    complete(store, task, verdict, started=0.0, finished=0.0, retention=60.0)
    result = Result.objects.get()
    assert (result.state, result.attempt, result.started_at) == (
        verdict.upper(),
        0,
        None,
    )
    assert result.prune_at is not None
    assert abs(result.finished_at - store.now()) < timedelta(seconds=5)


@pytest.mark.parametrize("verdict", [Verdict.REVOKED, Verdict.FAILED, Verdict.RETRY])
def test_metadata_of_any_outcome_replaces_that_of_the_task(
    store: Store, verdict: Verdict
) -> None:
    (task,) = claim_new(store, metadata='{"a": 1}')
    complete(store, task, verdict, metadata='{"b": 2}')
    record = store.fetch(task.id)
    assert record is not None
    assert record.metadata == '{"b": 2}'


@pytest.mark.parametrize(
    "verdict", [Verdict.RETRY, Verdict.CRASHED, Verdict.SNOOZED, Verdict.UNKNOWN]
)
def test_a_delay_schedules_the_next_run(store: Store, verdict: Verdict) -> None:
    (task,) = claim_new(store)
    complete(store, task, verdict, delay=100.0)
    row = Task.objects.get()
    assert (row.state, row.worker_id) == (State.SCHEDULED, None)
    assert abs(row.run_after - store.now() - timedelta(seconds=100)) < timedelta(
        seconds=5
    )
    assert claim(store) == []


@pytest.mark.parametrize("verdict", [Verdict.INTERRUPTED, Verdict.RELEASED])
def test_what_goes_back_keeps_its_place_in_the_line(
    store: Store, verdict: Verdict
) -> None:
    first, *_ = claim_new(store)
    (second,) = claim_new(store)
    complete(store, second, verdict)
    complete(store, first, verdict)
    assert [task.id for task in claim(store)] == [first.id, second.id]


def test_a_retry_goes_to_the_end_of_the_line(store: Store) -> None:
    first, second = claim_new(store, 2)
    complete(store, second, Verdict.RELEASED)
    complete(store, first, Verdict.RETRY)
    assert [task.id for task in claim(store)] == [second.id, first.id]


def test_the_lease_grows_with_every_claim_whatever_the_attempt(store: Store) -> None:
    (task,) = claim_new(store)
    for lease in (2, 3, 4):
        complete(store, task, Verdict.RELEASED)
        (task,) = claim(store)
        assert (task.lease, task.attempt) == (lease, 1)
    complete(store, task)
    assert Result.objects.get().lease == 4


def test_the_start_of_the_first_run_is_kept(store: Store) -> None:
    (task,) = claim_new(store)
    complete(store, task, Verdict.RETRY)
    first = store.now() - timedelta(hours=1)
    Task.objects.update(started_at=first)
    complete(store, claim(store)[0], Verdict.RETRY)
    assert Task.objects.get().started_at == first
    complete(store, claim(store)[0])
    result = Result.objects.get()
    assert result.started_at == first
    assert result.last_attempted_at is not None
    assert result.last_attempted_at >= first


def test_a_task_given_back_before_its_first_run_has_not_started(store: Store) -> None:
    (task,) = claim_new(store)
    complete(store, task, Verdict.RELEASED, started=0.0, finished=0.0)
    row = Task.objects.get()
    assert (row.started_at, row.last_attempted_at) == (None, None)


def test_the_next_run_starts_without_the_last_ones_progress(store: Store) -> None:
    (task,) = claim_new(store)
    store.save_metadata(WORKER, task.id, 1, progress='{"current": 1}')
    complete(store, task, Verdict.RETRY, metadata='{"seen": 1}')
    row = Task.objects.get()
    assert (row.progress, row.metadata) == (None, '{"seen": 1}')


def test_an_attempt_keeps_what_is_known_of_it(store: Store) -> None:
    store.register(new_worker(id=WORKER, name="eight"), 30)
    (task,) = claim_new(store)
    now = time.monotonic()
    Task.objects.update(last_attempted_at=store.now() - timedelta(seconds=60))
    complete(
        store,
        task,
        Verdict.RETRY,
        error=ERROR,
        log="said",
        started=now - 10,
        finished=now - 4,
    )
    kept = Attempt.objects.get()
    assert (kept.number, str(kept.worker_id), kept.worker_name) == (1, WORKER, "eight")
    error = (kept.exception_class, kept.message, kept.traceback, kept.fingerprint)
    assert (error, kept.log) == (ERROR, "said")
    assert kept.started_at is not None
    ran = (kept.finished_at - kept.started_at).total_seconds()
    assert ran == pytest.approx(6, abs=0.1)


def test_a_dead_letter_tells_its_reason_and_error(store: Store) -> None:
    (task,) = claim_new(store)
    complete(store, task, Verdict.FAILED, reason=Reason.GAVE_UP, error=ERROR)
    dead = DeadLetter.objects.get()
    assert dead.reason == Reason.GAVE_UP
    error = (dead.exception_class, dead.message, dead.traceback, dead.fingerprint)
    assert error == ERROR
    assert dead.prune_at is not None
    kept = dead.prune_at - dead.finished_at
    assert abs(kept - timedelta(days=90)) < timedelta(seconds=1)


@override_settings(DJANGO_JOBS={"DEAD_LETTER_RETENTION": None})
def test_dead_letters_may_be_kept_for_ever(store: Store) -> None:
    (task,) = claim_new(store)
    complete(store, task, Verdict.FAILED)
    assert DeadLetter.objects.get().prune_at is None


# -- revoke --------------------------------------------------------------------------


@pytest.mark.parametrize("verdict", UNSUCCESSFUL)
def test_a_run_that_was_to_stop_and_did_not_succeed_is_revoked(
    store: Store, verdict: Verdict
) -> None:
    (task,) = claim_new(store)
    store.revoke([task.id])
    complete(store, task, verdict, delay=5.0)
    assert places(task.id) == ["Result"]
    assert Result.objects.get().state == State.REVOKED


def test_a_run_that_succeeds_in_spite_of_the_request_is_successful(
    store: Store,
) -> None:
    (task,) = claim_new(store)
    store.revoke([task.id])
    complete(store, task)
    assert Result.objects.get().state == State.SUCCESSFUL


# -- crashes and unknown names ---------------------------------------------------------


@override_settings(DJANGO_JOBS={"CRASH_BUDGET": 2})
def test_a_task_that_crashes_too_often_becomes_a_dead_letter(store: Store) -> None:
    (task,) = claim_new(store)
    complete(store, task, Verdict.CRASHED)
    (task,) = claim(store)
    assert (task.attempt, task.crashes) == (2, 1)
    complete(store, task, Verdict.CRASHED)
    dead = DeadLetter.objects.get()
    assert (dead.reason, dead.attempt, dead.crashes) == (Reason.CRASHES, 2, 2)


def test_a_crash_that_the_worker_found_fatal_is_counted(store: Store) -> None:
    (task,) = claim_new(store)
    complete(store, task, Verdict.FAILED, reason=Reason.CRASHES)
    assert DeadLetter.objects.get().crashes == 1


def test_a_task_that_nobody_knows_is_remembered_as_such(store: Store) -> None:
    (task,) = claim_new(store)
    complete(store, task, Verdict.UNKNOWN)
    since = Task.objects.get().unknown_since
    assert since is not None
    for verdict in (Verdict.UNKNOWN, Verdict.RELEASED):
        complete(store, claim(store)[0], verdict)
        assert Task.objects.get().unknown_since == since
    complete(store, claim(store)[0], Verdict.RETRY)
    assert Task.objects.get().unknown_since is None


@override_settings(DJANGO_JOBS={"UNKNOWN_TASK_TIMEOUT": 3600})
def test_a_task_that_nobody_knows_for_long_becomes_a_dead_letter(store: Store) -> None:
    (task,) = claim_new(store)
    for minutes, place in [(59, "Task"), (61, "DeadLetter")]:
        Task.objects.update(unknown_since=store.now() - timedelta(minutes=minutes))
        complete(store, task, Verdict.UNKNOWN)
        assert places(task.id) == [place]
        task = next(iter(claim(store)), task)
    assert DeadLetter.objects.get().reason == Reason.UNKNOWN_TASK


# -- batches ---------------------------------------------------------------------------


def test_all_verdicts_may_come_in_one_batch(store: Store) -> None:
    tasks = claim_new(store, len(Verdict) + 1)
    outcomes = [
        outcome(task, verdict, delay=1.0, error=ERROR)
        for task, verdict in zip(tasks, Verdict, strict=False)
    ]
    stale = outcome(tasks[-1], Verdict.RETRY, lease=7)
    assert store.cycle(WORKER, [*outcomes, stale], Demand(1)).stale == [tasks[-1].id]
    assert [len(places(task.id)) for task in tasks] == [1] * len(tasks)
    assert (Result.objects.count(), DeadLetter.objects.count()) == (3, 1)


@pytest.mark.parametrize("verdict", Verdict)
@pytest.mark.parametrize(
    "changes", [{"lease": 2}, {"worker": OTHER_WORKER}], ids=["lease", "worker"]
)
def test_no_verdict_counts_without_the_lease(
    store: Store, verdict: Verdict, changes: dict[str, Any]
) -> None:
    (task,) = claim_new(store)
    assert complete(store, task, verdict, **changes) == [task.id]
    assert Task.objects.get().state == State.RUNNING
    assert verdicts(task.id) == []


def test_no_task_is_ever_lost_or_doubled(store: Store) -> None:
    dice = random.Random(7)
    insert(store, 40)
    running: dict[str, ClaimedTask] = {}
    for _ in range(30):
        outcomes = [
            outcome(
                task,
                dice.choice(list(Verdict)),
                lease=task.lease - dice.choice([0, 0, 1]),
            )
            for task in running.values()
        ]
        claimed, stale, _ = store.cycle(WORKER, outcomes, Demand(15))
        running = {each: task for each, task in running.items() if each in stale}
        running |= {task.id: task for task in claimed}
        counts = [table.objects.count() for table in (Task, Result, DeadLetter)]
        assert sum(counts) == 40
        assert Task.objects.filter(state="RUNNING").count() == len(running)


# -- what the database refuses ---------------------------------------------------------

BAD_TEXTS = ["nul \0", "surrogate \ud800"]


@pytest.mark.parametrize("text", BAD_TEXTS)
def test_a_return_value_that_the_database_refuses_is_escaped(
    store: Store, text: str
) -> None:
    good, bad, other = claim_new(store, 3)
    outcomes = [
        outcome(good, return_value="1"),
        outcome(bad, return_value=f'"{text}"'),
        outcome(other, return_value="2"),
    ]
    waiting = insert(store)
    claimed, stale, _ = store.cycle(WORKER, outcomes, Demand(5))
    assert ([task.id for task in claimed], stale) == (waiting, [])
    assert Result.objects.count() == 3


@pytest.mark.parametrize("text", BAD_TEXTS)
def test_an_error_that_the_database_refuses_is_escaped(store: Store, text: str) -> None:
    (task,) = claim_new(store)
    error = ErrorRecord(text * 100, text, text, text * 3)
    complete(store, task, Verdict.FAILED, error=error, log=text)
    dead, kept = DeadLetter.objects.get(), Attempt.objects.get()
    assert dead.reason == Reason.ATTEMPTS
    assert dead.message == kept.message == kept.log
    assert dead.message.split()[0] == text.split()[0]
    assert len(kept.exception_class) == 200


def test_an_outcome_that_cannot_be_stored_at_all_becomes_a_dead_letter(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, bad = claim_new(store, 2)
    refuse(store, monkeypatch, DataError("no"))
    outcomes = [outcome(good), outcome(bad, return_value="bad")]
    assert store.cycle(WORKER, outcomes, None).stale == []
    assert (places(good.id), places(bad.id)) == (["Result"], ["DeadLetter"])
    assert DeadLetter.objects.get().reason == Reason.CORRUPT
    assert "refused" in Attempt.objects.get().message


def test_trouble_that_passes_is_not_blamed_on_the_outcome(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    (task,) = claim_new(store)
    passing = OperationalError("gone away")
    for first in (passing, DataError("no")):
        with monkeypatch.context() as patch:
            refuse(store, patch, first, passing)
            with pytest.raises(OperationalError):
                complete(store, task, return_value="bad")
        assert places(task.id) == ["Task"]


def test_what_is_written_one_by_one_stays_so_when_the_claim_fails(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, bad = claim_new(store, 2)
    outcomes = [outcome(good), outcome(bad, return_value="bad")]
    with monkeypatch.context() as patch:
        refuse(store, patch, DataError("no"))
        # First for all, then for the claim alone.
        ends = [DataError("no"), OperationalError("deadlock")]
        patch.setattr(store, "_cycle", Mock(side_effect=ends))
        with pytest.raises(OperationalError):
            store.cycle(WORKER, outcomes, Demand(1))
    assert (places(good.id), places(bad.id)) == (["Result"], ["DeadLetter"])
    # So who repeats it has to know that these may be its own.
    repeated = store.cycle(WORKER, outcomes, Demand(1), again=True)
    assert sorted(repeated.stale) == sorted([good.id, bad.id])


def refuse(
    store: Any,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    alone: Exception | None = None,
) -> None:
    """Let the store fail as long as an outcome with a bad value is there."""
    cycle, here = store._cycle, store.complete_here

    def failing_cycle(worker_id: str, outcomes: Any, demand: Any) -> Any:
        if any(each.return_value == "bad" for each in outcomes):
            raise error
        return cycle(worker_id, outcomes, demand)

    def failing_here(worker_id: str, outcome: Any) -> Any:
        if outcome.return_value == "bad":
            raise alone or error
        return here(worker_id, outcome)

    monkeypatch.setattr(store, "_cycle", failing_cycle)
    monkeypatch.setattr(store, "complete_here", failing_here)


def test_a_task_that_is_not_there_is_stale(store: Store) -> None:
    (task,) = claim_new(store)
    gone = task._replace(id=str(uuid7()))
    assert complete(store, gone, Verdict.FAILED) == [gone.id]
    assert complete(store, gone) == [gone.id]
