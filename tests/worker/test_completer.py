"""The threads that speak to the database."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from queue import SimpleQueue
from typing import Any

import pytest
from django.db import OperationalError, ProgrammingError, connections

from django_jobs.store import Store, get_store
from django_jobs.worker import completer as module
from django_jobs.worker import outage
from django_jobs.worker.completer import Completer, Job
from tests.worker.parts import PATIENCE

pytestmark = pytest.mark.django_db(transaction=True)

Start = Callable[[], tuple[Completer, "SimpleQueue[Job]"]]


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Start a completer that waits hardly at all; return it and what it has done."""
    monkeypatch.setattr(outage, "FIRST_PAUSE", 0.0001)
    monkeypatch.setattr(outage, "LONGEST_PAUSE", 0.001)
    monkeypatch.setattr(module, "LONGEST_WAIT", 0.001)
    started: list[Completer] = []

    def make() -> tuple[Completer, SimpleQueue[Job]]:
        done: SimpleQueue[Job] = SimpleQueue()
        started.append(Completer(get_store("default"), done.put))
        started[-1].start()
        return started[-1], done

    yield make
    for completer in started:
        completer.close(PATIENCE)


def failing(
    times: float, answer: str = "answer", error: type[Exception] = OperationalError
) -> Callable[[Store], str]:
    """Return work that fails so many times."""
    calls = iter(range(10**9))

    def work(store: Store) -> str:
        if next(calls) < times:
            raise error("the database is away")
        return answer

    return work


def run(completer: Completer, done: SimpleQueue[Job], job: Job) -> Job:
    completer.submit(job)
    finished = done.get(timeout=PATIENCE)
    completer.finish(finished)
    return finished


def never(answer: Any = None) -> None:
    raise AssertionError("must not be called")


def test_an_answer_comes_back_as_a_value(start: Start) -> None:
    completer, done = start()
    answers: list[object] = []
    job = run(completer, done, Job("x", lambda store: store, answers.append))
    assert answers == [completer.store]
    assert (job.failures, job.error, completer.in_flight) == (0, None, 0)


def test_the_work_is_done_in_another_thread(start: Start) -> None:
    completer, done = start()
    names: list[str] = []
    work = lambda store: threading.current_thread().name  # noqa: E731
    run(completer, done, Job("x", work, names.append))
    assert names[0].startswith("database-")


@pytest.mark.parametrize("failures", [1, 7])
def test_a_vital_job_is_repeated_until_it_succeeds(start: Start, failures: int) -> None:
    completer, done = start()
    answers: list[str] = []
    job = run(completer, done, Job("x", failing(failures), answers.append))
    assert answers == ["answer"]
    assert job.failures == failures


def test_a_job_that_is_not_vital_is_only_tried(start: Start) -> None:
    completer, done = start()
    failed: list[bool] = []
    job = Job("x", failing(1), never, False, lambda: failed.append(True))
    run(completer, done, job)
    assert (failed, job.failures) == ([True], 1)
    assert isinstance(job.error, OperationalError)


def test_not_only_errors_of_the_database_are_survived(start: Start) -> None:
    completer, done = start()
    run(completer, done, Job("x", lambda store: 1 / 0, never, is_vital=False))
    assert run(completer, done, Job("y", failing(0), len)).answer == "answer"


Told = list[tuple[str, bool]]


def told(caplog: pytest.LogCaptureFixture) -> Told:
    """Return what was logged, and whether a traceback stands below it."""
    return [(record.getMessage(), bool(record.exc_info)) for record in caplog.records]


def test_an_outage_is_said_once_without_a_traceback_and_so_is_its_end(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "django_jobs")
    completer, done = start()
    run(completer, done, Job("claim", failing(5), len))
    lost, *more = told(caplog)
    assert lost[0].startswith("event=connection_lost alias=default error=")
    assert more == [
        (
            "event=database_unreachable alias=default "
            'error="the database is away" retry_in=0.0',
            False,
        ),
        ("event=database_reachable alias=default", False),
    ]


@pytest.mark.parametrize("is_vital", [True, False])
def test_a_connection_that_was_merely_cut_is_no_outage(
    start: Start, caplog: pytest.LogCaptureFixture, is_vital: bool
) -> None:
    caplog.set_level(logging.INFO, "django_jobs")
    completer, done = start()
    run(completer, done, Job("x", failing(1), lambda answer: None, is_vital))
    run(completer, done, Job("x", failing(0), len))
    (record,) = caplog.records
    assert record.levelno == logging.INFO
    assert record.getMessage().startswith("event=connection_lost alias=default")


def test_jobs_that_are_only_tried_tell_of_an_outage_as_well(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    completer, done = start()
    for _ in range(3):
        run(completer, done, Job("x", failing(1), never, is_vital=False))
    (line,) = caplog.messages
    assert line.startswith("event=database_unreachable alias=default")


def test_another_failure_is_said_once_with_a_traceback_and_so_is_its_end(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "django_jobs")
    completer, done = start()
    run(completer, done, Job("claim", failing(5, error=ProgrammingError), len))
    assert told(caplog) == [
        ("event=database_failing job=claim", True),
        ("event=database_back job=claim failures=5", False),
    ]


def test_a_job_that_is_given_up_does_not_keep_an_outage_on(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    completer, done = start()
    run(completer, done, Job("x", failing(1), never, is_vital=False))
    assert completer.outage.is_on
    run(completer, done, Job("y", failing(0), len))
    assert not completer.outage.is_on


def test_a_new_connection_is_used_after_a_failure(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    completer, done = start()
    closed: list[str] = []
    does = {
        "ensure_connection": lambda self: None,
        "close": lambda self: closed.append("x"),
    }
    connection = type("Connection", (), does)
    connections = {completer.store.alias: connection()}
    monkeypatch.setattr(module, "connections", connections)
    run(completer, done, Job("x", failing(3), len))
    assert len(closed) == 3


def fail(*args: object) -> None:
    raise RuntimeError("not even this")


@pytest.mark.parametrize("error", [OperationalError, ProgrammingError])
def test_a_connection_that_cannot_be_closed_is_replaced(
    start: Start, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    completer, done = start()
    wrapper = type(connections[completer.store.alias])
    close = wrapper._close

    def close_and_fail(connection: Any) -> None:
        close(connection)
        fail()

    with monkeypatch.context() as patch:
        patch.setattr(wrapper, "_close", close_and_fail)
        job = run(completer, done, Job("x", failing(3, error=error), len))
    assert (job.answer, job.failures) == ("answer", 3)


@pytest.mark.parametrize("where", ["failed", "succeeded"])
def test_an_error_of_ours_ends_no_thread_and_loses_no_job(
    start: Start,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    where: str,
) -> None:
    monkeypatch.setattr(outage, "FAULT_PAUSE", 0.001)
    completer, done = start()
    with monkeypatch.context() as patch:
        patch.setattr(completer.outage, where, fail)
        # More than there are threads.
        for _ in range(5):
            run(completer, done, Job("x", failing(1), len))
            run(completer, done, Job("x", failing(1), lambda _: None, is_vital=False))
    assert run(completer, done, Job("y", failing(0), len)).answer == "answer"
    assert "event=thread_failed part=database-" in caplog.text


def test_a_connection_that_an_error_left_between_transactions_is_replaced(
    start: Start,
) -> None:
    completer, done = start()
    seen: list[bool] = []

    def work(store: Store) -> None:
        connection = connections[store.alias]
        seen.append(connection.get_autocommit())
        if len(seen) == 1:
            connection.set_autocommit(False)
            raise Deadlock

    run(completer, done, Job("x", work, lambda answer: None))
    assert seen == [True, True]


def test_a_connection_that_was_opened_in_part_is_replaced(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    completer, done = start()
    wrapper, settled = type(connections[completer.store.alias]), list[object]()
    settle = wrapper.init_connection_state

    def refuse_first(connection: Any) -> None:
        settled.append(connection)
        if len(settled) == 1:
            raise Deadlock
        settle(connection)

    monkeypatch.setattr(wrapper, "init_connection_state", refuse_first)
    run(completer, done, Job("x", lambda store: store.now(), lambda answer: None))
    assert len(settled) == 2


def test_closing_gives_up_what_still_fails(start: Start) -> None:
    completer, done = start()
    tried = threading.Event()
    error = OperationalError("the database is away for good")

    def work(store: Store) -> None:
        tried.set()
        raise error

    completer.submit(Job("x", work, never))
    assert tried.wait(PATIENCE)
    completer.close(PATIENCE)
    job = done.get(timeout=PATIENCE)
    completer.finish(job)
    assert (job.error, completer.in_flight) == (error, 0)


def test_closing_still_does_what_was_submitted(start: Start) -> None:
    completer, done = start()
    for _ in range(5):
        completer.submit(Job("x", failing(0), len))
    completer.close(PATIENCE)
    assert [done.get(timeout=PATIENCE).answer for _ in range(5)] == ["answer"] * 5


def test_who_failed_waits_for_its_turn_to_try_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    completer = Completer(get_store("default"), never)
    waits: list[int] = []
    monkeypatch.setattr(completer.outage, "wait", waits.append)
    job = Job("x", never, never)
    for _ in range(3):
        completer._after_failure(job, OperationalError())
    assert waits == [1, 2, 3]


def test_waits_after_a_fault_of_ours_grow_and_are_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    completer = Completer(get_store("default"), never)
    waits: list[float] = []
    monkeypatch.setattr(completer._hurry, "wait", waits.append)
    job = Job("x", never, never)
    for _ in range(2000):
        completer._after_failure(job, ProgrammingError())
    assert waits[0] <= 1.25 * outage.FIRST_PAUSE < waits[5]
    assert module.LONGEST_WAIT / 2 < max(waits) <= 1.25 * module.LONGEST_WAIT


class Deadlock(OperationalError):
    def __init__(self, *args: object) -> None:
        super().__init__(1213, "Deadlock found")


def test_a_conflict_now_and_then_is_nothing_to_speak_of(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    completer, done = start()
    job = run(completer, done, Job("claim", failing(2, error=Deadlock), len))
    assert (job.failures, told(caplog)) == (2, [])


def test_one_that_lasts_is_said_and_is_no_outage(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    completer, done = start()
    run(completer, done, Job("claim", failing(6, error=Deadlock), len))
    error = "\"(1213, 'Deadlock found')\""
    assert told(caplog) == [
        (f"event=database_contended alias=default error={error} retry_in=0.0", False),
        ("event=database_uncontended alias=default", False),
    ]


def test_a_call_is_watched_and_has_more_time_after_a_failure(start: Start) -> None:
    completer, done = start()
    seen: list[tuple[str, float]] = []

    def work(store: Store) -> None:
        [call] = completer.watchdog.calls()
        assert call.connections == (connections[store.alias],)
        seen.append((call.name, call.deadline))
        if len(seen) < 5:
            raise OperationalError

    run(completer, done, Job("claim", work, lambda answer: None))
    assert [name for name, _ in seen] == ["claim"] * 5
    assert [deadline for _, deadline in seen] == [15, 30, 60, 60, 60]
    assert completer.watchdog.calls() == []


def test_as_many_jobs_are_under_way_as_the_database_takes(start: Start) -> None:
    completer, _ = start()
    gate = threading.Event()
    for place in range(completer.store.cycles_in_flight):
        assert completer.is_free, place
        completer.submit(Job("x", lambda store: gate.wait(PATIENCE), len))
    assert not completer.is_free
    gate.set()


def test_writers_of_an_unfair_database_take_turns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = get_store("default")
    for has_single_writer in (True, False):
        monkeypatch.setattr(type(store), "has_single_writer", has_single_writer)
        turn = Completer(store, never).turn
        assert isinstance(turn, nullcontext) is not has_single_writer
