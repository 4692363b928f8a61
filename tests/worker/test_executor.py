"""One attempt: each way in which a task can end gives its outcome."""

from __future__ import annotations

import json
import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.db import connection

from django_jobs import current_context, middleware
from django_jobs.definitions import TaskDefinition, is_async_name
from django_jobs.models import Queue, Result, Task
from django_jobs.records import ClaimedTask, Outcome
from django_jobs.signals import task_finished, task_started
from django_jobs.states import Reason, State, Verdict
from django_jobs.store import get_store
from django_jobs.worker import atomic, capture
from django_jobs.worker.coroutines import Loop
from django_jobs.worker.executor import NOT_MIGRATED_WAIT, Executor
from django_jobs.worker.strays import UNKNOWN_WAIT
from django_jobs.worker.timeouts import Interruptions
from tests.sampleapp.hands import Hands
from tests.tables import without
from tests.worker import tasks
from tests.worker.parts import claimed, wait_for

Definition = TaskDefinition[..., Any]
Run = Callable[..., Outcome]


@pytest.fixture(autouse=True)
def _no_connection_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    # Those of other tests are none of ours, and must not be asked for here.
    monkeypatch.setattr(middleware, "_opened", set())


@pytest.fixture
def executor() -> Iterator[Executor]:
    before = signal.getsignal(signal.SIGALRM)
    interruptions = Interruptions()
    interruptions.listen_in_main_thread()
    tasks.seen.clear()
    yield Executor("me", "default", interruptions)
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def logs() -> Iterator[None]:
    root = logging.getLogger()
    before = list(root.handlers)
    capture.capture_logs()
    yield
    root.handlers[:] = before


@pytest.fixture
def run(executor: Executor) -> Run:
    """Run a claimed task of a definition, sync or not."""

    def go(definition: Definition, *args: Any, **changes: Any) -> Outcome:
        return run_here(executor, claim(definition, *args, **changes))

    return go


def run_here(executor: Executor, task: ClaimedTask) -> Outcome:
    if not is_async_name(task.name):
        return executor.run(task)
    watched = Loop(executor, lambda outcome: None, slots=1)._watched
    # Not asyncio.run(): what is sync in it shall use the connection of this thread.
    return async_to_sync(executor.run_async)(task, watched)


def claim(definition: Definition, *args: Any, **changes: Any) -> ClaimedTask:
    changes.setdefault("args", json.dumps(args))
    return claimed(definition.name, **changes)


both = pytest.mark.parametrize("end", [tasks.end, tasks.aend], ids=["sync", "async"])
gives = pytest.mark.parametrize(
    "give", [tasks.give, tasks.agive], ids=["sync", "async"]
)


# -- success -----------------------------------------------------------------------


@gives
def test_the_value_comes_back_as_json(run: Run, give: Definition) -> None:
    outcome = run(give, {"a": [1, "\u00e9"]}, lease=5)
    assert (outcome.verdict, outcome.lease) == (Verdict.SUCCESSFUL, 5)
    assert outcome.return_value == '{"a":[1,"\\u00e9"]}'
    assert (outcome.error, outcome.retention, outcome.metadata) == (None, 77, None)


@gives
def test_the_time_of_a_run_is_told(run: Run, give: Definition) -> None:
    outcome = run(give)
    assert 0 < outcome.started <= outcome.finished
    assert outcome.finished - outcome.started < 20


def test_a_result_that_is_not_kept_may_be_anything(run: Run) -> None:
    outcome = run(tasks.give_nothing_to_keep)
    assert (outcome.verdict, outcome.return_value) == (Verdict.SUCCESSFUL, None)


# -- failures ----------------------------------------------------------------------

ENDS = [
    ("error", Verdict.RETRY, None, 33),
    ("unwanted", Verdict.FAILED, Reason.GAVE_UP, 0),
    ("reject", Verdict.FAILED, Reason.REJECTED, 0),
    ("retry", Verdict.RETRY, None, 7),
    ("retry by policy", Verdict.RETRY, None, 33),
    ("snooze", Verdict.SNOOZED, None, 9),
    ("exit", Verdict.RETRY, None, 33),
    ("keyboard", Verdict.RETRY, None, 33),
    ("generator", Verdict.RETRY, None, 33),
    ("interrupted", Verdict.INTERRUPTED, None, 0),
    ("soft", Verdict.RETRY, None, 33),
    ("group", Verdict.RETRY, None, 33),
]


@both
@pytest.mark.parametrize(("how", "verdict", "reason", "delay"), ENDS)
def test_each_end_has_its_outcome(
    run: Run,
    end: Definition,
    how: str,
    verdict: Verdict,
    reason: Reason | None,
    delay: float,
) -> None:
    outcome = run(end, how)
    assert (outcome.verdict, outcome.reason) == (verdict, reason)
    assert outcome.delay == delay
    assert outcome.return_value is None


@both
def test_the_last_attempt_makes_a_dead_letter(run: Run, end: Definition) -> None:
    outcome = run(end, "error", attempt=3)
    assert (outcome.verdict, outcome.reason) == (Verdict.FAILED, Reason.ATTEMPTS)
    assert run(end, "error", attempt=3, crashes=1).verdict is Verdict.RETRY


@both
def test_the_error_is_told_from_the_task_on(run: Run, end: Definition) -> None:
    error = run(end, "error").error
    assert error is not None
    assert (error.exception_class, error.message) == ("builtins.ValueError", "no luck")
    assert "django_jobs" not in error.traceback


@both
def test_an_error_without_text_is_told_as_such(run: Run, end: Definition) -> None:
    outcome = run(end, "unspeakable")
    assert outcome.verdict is Verdict.RETRY
    assert outcome.error is not None
    assert outcome.error.exception_class == "tests.worker.tasks.Unspeakable"


@both
def test_an_error_that_leaves_when_it_is_looked_at_does_not(
    run: Run, end: Definition
) -> None:
    outcome = run(end, "treacherous")
    assert outcome.error is not None
    assert outcome.error.exception_class == "tests.worker.tasks.Treacherous"


def test_a_backoff_that_leaves_costs_only_its_task(run: Run) -> None:
    outcome = run(tasks.fail_with_a_backoff_that_leaves)
    assert outcome.verdict is Verdict.RETRY
    assert outcome.delay > 0
    assert outcome.error is not None
    assert outcome.error.exception_class == "builtins.ValueError"


@both
def test_an_error_is_text_that_every_database_takes(run: Run, end: Definition) -> None:
    error = run(end, "nul").error
    assert error is not None
    assert error.message == "a\\x00b \\ud800"


def test_a_result_that_is_no_json_is_a_dead_letter_at_once(run: Run) -> None:
    for give in (tasks.give_what_is_no_json, tasks.agive_what_is_no_json):
        outcome = run(give, attempt=1, max_attempts=3)
        assert (outcome.verdict, outcome.reason) == (Verdict.FAILED, Reason.RESULT)
        assert outcome.error is not None
        assert outcome.error.exception_class == "django_jobs.exceptions.InvalidResult"
        assert outcome.error.message.startswith("return value['a'][0]: object is no")


def test_a_result_that_is_too_large_is_a_dead_letter_at_once(
    run: Run, settings: Any
) -> None:
    settings.DJANGO_JOBS = {"RESULT_MAX_BYTES": 10}
    assert run(tasks.give, "x" * 8).verdict is Verdict.SUCCESSFUL
    outcome = run(tasks.give, "x" * 9)
    assert (outcome.verdict, outcome.reason) == (Verdict.FAILED, Reason.RESULT)
    assert outcome.error is not None
    words = (
        "the return value has 11 bytes of JSON, over RESULT_MAX_BYTES (10); store it"
    )
    assert outcome.error.message.startswith(words)


def test_a_result_may_be_as_deep_as_the_settings_say(run: Run, settings: Any) -> None:
    settings.DJANGO_JOBS = {"PAYLOAD_MAX_DEPTH": 2}
    assert run(tasks.give_list, [1]).return_value == "[[1]]"
    outcome = run(tasks.give_list, [[1]])
    assert outcome.reason is Reason.RESULT
    assert outcome.error is not None
    assert "return value[0][0]: nested too deeply" in outcome.error.message


# -- rows that cannot be run -------------------------------------------------------


@gives
@pytest.mark.parametrize(
    "changes",
    [
        *({"args": "[1"}, {"kwargs": "nonsense"}, {"headers": ""}),
        *({"args": "[" * 99_999}, {"headers": "[" * 99_999}, {"kwargs": "[]"}),
    ],
    ids=["args", "kwargs", "headers", "depth", "depth of headers", "kind"],
)
def test_a_row_that_cannot_be_read_is_a_dead_letter_at_once(
    run: Run,
    executor: Executor,
    give: Definition,
    changes: dict[str, str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    outcome = run(give, **changes)
    assert (outcome.verdict, outcome.reason) == (Verdict.FAILED, Reason.CORRUPT)
    assert outcome.error is not None
    assert f"the column {next(iter(changes))} " in outcome.error.message
    assert executor._contexts == {}
    assert caplog.text.count("event=task_finished") == 1
    assert "verdict=failed" in caplog.text


def test_arguments_that_no_longer_fit_are_the_tasks_failure(run: Run) -> None:
    outcome = run(tasks.give, 1, 2, 3)
    assert outcome.verdict is Verdict.RETRY
    assert outcome.error is not None
    assert outcome.error.exception_class == "builtins.TypeError"


def test_an_unknown_task_goes_back(executor: Executor) -> None:
    task = claimed("of.the.next.release")
    outcomes = [executor.run(task) for _ in range(100)]
    assert {(each.verdict, each.error) for each in outcomes} == {
        (Verdict.UNKNOWN, None)
    }
    # Those that came together do not come back together.
    delays = {each.delay / UNKNOWN_WAIT for each in outcomes}
    assert 0.5 <= min(delays) < 0.75 < 1.25 < max(delays) <= 1.5


# -- logs and metadata -------------------------------------------------------------


@pytest.mark.usefixtures("logs")
def test_the_log_of_the_attempt_comes_along(run: Run) -> None:
    log = run(tasks.log, "one\0", "two").log or ""
    lines = [line.rpartition(": ")[2] for line in log.splitlines()]
    assert lines == ["one\\x00", "two"]
    assert run(tasks.give).log is None


@pytest.mark.usefixtures("logs")
def test_a_long_log_is_cut(run: Run, settings: Any) -> None:
    settings.DJANGO_JOBS = {"LOG_MAX_BYTES": 1000}
    log = run(tasks.log, *["x" * 100] * 50).log
    assert log is not None
    assert 700 < len(log) <= 1000
    assert log.startswith("[44 earlier lines dropped]\n")


@pytest.mark.parametrize("fails", [True, False])
def test_changed_metadata_comes_along_however_it_ends(run: Run, fails: bool) -> None:
    assert run(tasks.change_metadata, fails).metadata == '{"new":1}'
    assert run(tasks.change_metadata, fails, metadata='{"new":1}').metadata is None


def test_metadata_that_is_no_json_is_the_tasks_failure(run: Run) -> None:
    for fails in (False, True):
        outcome = run(tasks.change_metadata, fails, "no JSON")
        assert (outcome.verdict, outcome.metadata) == (Verdict.RETRY, None)


def test_too_much_metadata_is_a_dead_letter_at_once(run: Run, settings: Any) -> None:
    settings.DJANGO_JOBS = {"PAYLOAD_MAX_BYTES": 9}
    assert run(tasks.change_metadata, False).metadata == '{"new":1}'
    outcome = run(tasks.change_metadata, False, "x" * 99)
    assert (outcome.verdict, outcome.reason) == (Verdict.FAILED, Reason.RESULT)
    assert outcome.metadata is None
    assert outcome.error is not None
    assert "over PAYLOAD_MAX_BYTES (9)" in outcome.error.message
    # What the task itself raised says more.
    outcome = run(tasks.change_metadata, True, "x" * 99)
    assert (outcome.verdict, outcome.metadata) == (Verdict.RETRY, None)


# -- the context -------------------------------------------------------------------


def test_the_context_is_there_while_the_task_runs(run: Run, executor: Executor) -> None:
    outcome = run(tasks.look_around, attempt=2, time_limit=60.0)
    assert json.loads(outcome.return_value or "") == [True, 2, True, "me"]
    assert current_context() is None
    assert executor._contexts == {}


def test_a_soft_limit_ends_the_task(run: Run) -> None:
    outcome = run(tasks.overstay)
    assert outcome.verdict is Verdict.RETRY
    assert outcome.error is not None
    assert outcome.error.exception_class.endswith(".SoftTimeLimitExceeded")
    assert outcome.error.message == "longer than its soft limit of 0.02 s"


def test_a_task_may_end_well_after_its_soft_limit(run: Run) -> None:
    assert run(tasks.overstay_politely).return_value == '"tidied up"'


def test_who_is_interrupted_may_also_ask_whether_to_stop(
    run: Run, executor: Executor
) -> None:
    task = claim(tasks.wait_until_told)

    def interrupt() -> None:
        wait_for(lambda: tasks.seen == [task.id])
        executor.ask_to_stop("another")
        executor.ask_to_stop(task.id)
        executor.interruptions.interrupt(task.id)

    thread = threading.Thread(target=interrupt)
    thread.start()
    outcome = executor.run(task)
    thread.join(20)
    assert outcome.return_value == '"asked to stop: True"'


# -- signals -----------------------------------------------------------------------


@pytest.fixture
def told() -> Iterator[list[tuple[Any, ...]]]:
    """What receivers of both signals are told."""
    noted: list[tuple[Any, ...]] = []

    def started(sender: Any, task_result: Any, **kwargs: Any) -> None:
        noted.append(("started", sender, task_result.status))

    def finished(sender: Any, task_result: Any, **kwargs: Any) -> None:
        errors = [error.message for error in task_result.errors]
        noted.append(
            ("finished", sender, task_result.status, errors, sys.exc_info()[0])
        )

    task_started.connect(started)
    task_finished.connect(finished)
    yield noted
    task_started.disconnect(started)
    task_finished.disconnect(finished)


Told = list[tuple[Any, ...]]


def enqueued(definition: Definition, *args: Any) -> tuple[Hands, ClaimedTask]:
    definition.enqueue(*args)
    hands = Hands()
    return hands, hands.claim()


def execute(executor: Executor, definition: Definition, *args: Any) -> Outcome:
    """Enqueue, claim and run a task."""
    hands, task = enqueued(definition, *args)
    executor.worker_id = hands.id
    return run_here(executor, task)


@pytest.mark.django_db(transaction=True)
@gives
def test_receivers_are_told_of_a_success(
    executor: Executor, told: Told, give: Definition
) -> None:
    execute(executor, give, 1)
    assert told == [
        ("started", give, State.RUNNING),
        ("finished", give, State.SUCCESSFUL, [], None),
    ]


@pytest.mark.django_db(transaction=True)
@both
@pytest.mark.parametrize(
    ("how", "state", "kind"),
    [
        ("unwanted", State.FAILED, KeyError),
        ("error", State.SCHEDULED, ValueError),
        ("exit", State.SCHEDULED, SystemExit),
    ],
)
def test_receivers_are_told_of_a_failure_inside_its_handler(
    executor: Executor,
    told: Told,
    end: Definition,
    how: str,
    state: State,
    kind: type[BaseException],
) -> None:
    outcome = execute(executor, end, how)
    assert outcome.error is not None
    assert told[1:] == [("finished", end, state, [outcome.error.message], kind)]


@pytest.mark.django_db(transaction=True)
@both
def test_receivers_are_told_that_a_run_was_revoked(
    executor: Executor, told: Told, end: Definition
) -> None:
    def revoke(sender: Any, task_result: Any, **kwargs: Any) -> None:
        executor.ask_to_stop(task_result.id, is_revoked=True)

    task_started.connect(revoke)
    try:
        execute(executor, end, "interrupted")
    finally:
        task_started.disconnect(revoke)
    assert [each[2] for each in told] == [State.RUNNING, State.REVOKED]


@pytest.mark.django_db(transaction=True)
def test_a_receiver_that_raises_hinders_nobody(
    executor: Executor, told: Told, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(**kwargs: Any) -> None:
        raise RuntimeError("a receiver")

    task_finished.connect(fail)
    try:
        outcome = execute(executor, tasks.give, 1)
    finally:
        task_finished.disconnect(fail)
    assert outcome.verdict is Verdict.SUCCESSFUL
    assert len(told) == 2


def test_a_database_that_does_not_answer_receivers_fails_no_task(
    run: Run, told: Told, caplog: pytest.LogCaptureFixture
) -> None:
    # Without the mark of pytest-django every query is an error.
    assert run(tasks.give).verdict is Verdict.SUCCESSFUL
    assert "event=not_announced" in caplog.text


# -- atomic tasks ------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_an_atomic_task_completes_itself_with_what_it_wrote(
    executor: Executor,
) -> None:
    outcome = execute(executor, tasks.note, "kept")
    assert (outcome.verdict, outcome.recorded) == (Verdict.SUCCESSFUL, True)
    assert (Result.objects.get().return_value, tasks.seen) == ('"kept"', [True])
    assert Queue.objects.get().name == "kept"


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("how", "verdict"), [("raise", Verdict.RETRY), ("no JSON", Verdict.FAILED)]
)
def test_an_atomic_task_that_fails_leaves_nothing(
    executor: Executor, how: str, verdict: Verdict
) -> None:
    outcome = execute(executor, tasks.note, "gone", how)
    assert (outcome.verdict, outcome.recorded) == (verdict, False)
    assert not Queue.objects.exists()
    assert Task.objects.get().state == State.RUNNING


@pytest.mark.django_db(transaction=True)
def test_an_atomic_task_that_lost_its_lease_leaves_nothing(executor: Executor) -> None:
    _, task = enqueued(tasks.note, "gone")
    executor.worker_id = Hands().id
    outcome = executor.run(task)
    assert outcome.error is not None
    assert outcome.error.exception_class.endswith(".StaleLease")
    assert not Queue.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_an_atomic_task_waits_for_the_migration_that_its_completion_needs(
    executor: Executor, caplog: pytest.LogCaptureFixture
) -> None:
    hands, task = enqueued(tasks.note, "kept")
    executor.worker_id = hands.id
    with without(Result, "return_value"):
        outcomes = [executor.run(task) for _ in range(2)]
    assert [(each.verdict, each.delay) for each in outcomes] == [
        (Verdict.SNOOZED, NOT_MIGRATED_WAIT)
    ] * 2
    assert not Queue.objects.exists()
    assert caplog.text.count("event=database_not_migrated") == 1
    assert executor.run(task).verdict is Verdict.SUCCESSFUL
    assert "event=database_migrated" in caplog.text


@pytest.mark.django_db(transaction=True)
def test_what_is_committed_is_done_although_a_callback_leaves(
    executor: Executor, caplog: pytest.LogCaptureFixture
) -> None:
    outcome = execute(executor, tasks.note, "kept", "callback fails")
    assert (outcome.verdict, outcome.recorded) == (Verdict.SUCCESSFUL, True)
    assert "event=callback_failed" in caplog.text


class Conflict(Exception):
    """Stands for a deadlock."""


@pytest.fixture
def one_conflict(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], None]]:
    """Let the first completion of an atomic task end in a conflict.

    What is put into the list is called at that moment.
    """
    calls: list[Callable[[], None]] = []
    store = get_store("default")
    complete = store.complete_here

    def conflict(worker_id: str, outcome: Outcome) -> bool:
        monkeypatch.setattr(store, "complete_here", complete)
        for call in calls:
            call()
        raise Conflict

    monkeypatch.setattr(store, "complete_here", conflict)
    is_conflict = lambda error: isinstance(error, Conflict)  # noqa: E731
    monkeypatch.setattr(atomic, "is_conflict", is_conflict)
    return calls


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("one_conflict")
def test_a_body_that_runs_again_after_a_conflict_has_its_soft_limit(
    executor: Executor,
) -> None:
    outcome = execute(executor, tasks.overstay_at_second_run)
    assert tasks.seen == ["run", "run"]
    assert outcome.error is not None
    assert outcome.error.exception_class.endswith(".SoftTimeLimitExceeded")


@pytest.mark.django_db(transaction=True)
def test_a_body_is_not_run_again_when_it_was_to_be_interrupted(
    executor: Executor, one_conflict: list[Callable[[], None]]
) -> None:
    hands, task = enqueued(tasks.note, "gone")
    executor.worker_id = hands.id
    one_conflict.append(lambda: executor.ask_to_stop(task.id))
    one_conflict.append(lambda: executor.interruptions.interrupt(task.id))
    assert executor.run(task).verdict is Verdict.INTERRUPTED
    assert tasks.seen == [True]
    assert not Queue.objects.exists()


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("one_conflict")
def test_a_body_that_runs_again_may_be_interrupted(executor: Executor) -> None:
    hands, task = enqueued(tasks.wait_at_second_run)
    executor.worker_id = hands.id

    def interrupt() -> None:
        wait_for(lambda: tasks.seen == ["run", "run"])
        executor.interruptions.interrupt(task.id)

    thread = threading.Thread(target=interrupt)
    thread.start()
    assert executor.run(task).verdict is Verdict.INTERRUPTED
    thread.join(20)


@pytest.mark.django_db(transaction=True)
def test_a_transaction_left_open_is_rolled_back_and_the_tasks_failure() -> None:
    hands, task = enqueued(tasks.leave_a_transaction_open)
    executor = Executor(hands.id, "default", Interruptions())

    def go() -> tuple[Outcome, bool]:
        # In a thread, whose connection is no other test's: it is thrown away.
        try:
            return executor.run(task), connection.in_atomic_block
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as pool:
        outcome, is_open = pool.submit(go).result()
    assert outcome.error is not None
    assert "left a transaction open on default" in outcome.error.message
    assert (is_open, Queue.objects.exists()) == (False, False)


# -- middleware --------------------------------------------------------------------


def swallow(get_response: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def layer(context: Any) -> Any:
        try:
            return get_response(context)
        except ValueError:
            return "swallowed"

    return layer


def break_in(get_response: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def layer(context: Any) -> Any:
        raise RuntimeError("a middleware")

    return layer


@both
def test_a_middleware_may_turn_a_failure_into_a_value(
    run: Run, end: Definition, settings: Any
) -> None:
    settings.DJANGO_JOBS = {"MIDDLEWARE": [f"{__name__}.swallow"]}
    assert run(end, "error").return_value == '"swallowed"'


@gives
def test_a_middleware_that_raises_is_the_tasks_failure(
    run: Run, give: Definition, settings: Any
) -> None:
    settings.DJANGO_JOBS = {"MIDDLEWARE": [f"{__name__}.break_in"]}
    outcome = run(give)
    assert outcome.verdict is Verdict.RETRY
    assert outcome.error is not None
    assert outcome.error.message == "a middleware"


@gives
def test_a_middleware_that_is_not_there_is_the_tasks_failure(
    run: Run, give: Definition, settings: Any
) -> None:
    settings.DJANGO_JOBS = {"MIDDLEWARE": ["never.seen"]}
    assert run(give).verdict is Verdict.RETRY
