"""JobsBackend keeps the contract of Django's tasks, up to the run in a worker."""

from __future__ import annotations

import dataclasses
import math
import pickle
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import django
import pytest
from asgiref.sync import async_to_sync
from django.db import connections, transaction
from django.test import override_settings
from django.utils import timezone

from django_jobs import fetch_result, signals
from django_jobs.definitions import find_definition, get_definition, is_async_name
from django_jobs.exceptions import EnqueueError, InvalidArguments, UnknownState
from django_jobs.models import DeadLetter, Queue, Result, Task
from django_jobs.options import UNSET
from django_jobs.records import Demand
from django_jobs.states import Reason, State
from django_jobs.store import get_store
from django_jobs.worker.executor import Executor
from django_jobs.worker.timeouts import Interruptions

if django.VERSION < (6, 0):
    pytest.importorskip("django_tasks", reason="the backport is not installed")

from django_jobs.backend import JobsBackend, JobsTask, JobsTaskResult, api
from django_jobs.backend.api import TaskResultStatus as Status
from django_jobs.backend.api import task_backends
from tests.sampleapp.hands import Hands
from tests.store.samples import new_worker
from tests.thirdparty import tasks

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])

FAILURE = "This Task failed due to ValueError"


def plain_function(left: int, right: int = 0) -> int:
    return left - right


def other_function() -> None: ...


def third_function(left: int) -> None: ...


def declare(function: Any = plain_function, **options: Any) -> JobsTask:
    """Declare as Django's decorator does; that of 6.0 does not take our options."""
    given = {"priority": 0, "backend": "default", "queue_name": "default", **options}
    return JobsTask(func=function, **{"run_after": None, **given})


def run_due(alias: str = "default") -> None:
    """Run what is READY as a worker does, but in this process."""
    store, worker_id = get_store(alias), str(uuid.uuid4())
    store.register(new_worker(id=worker_id), 60.0)
    executor = Executor(worker_id, alias, Interruptions())
    for task in store.cycle(worker_id, [], Demand(100)).claimed:
        run = _run_on_loop if is_async_name(task.name) else Executor.run
        assert store.cycle(worker_id, [run(executor, task)], None).stale == []


def _run_on_loop(executor: Executor, task: Any) -> Any:
    async def watched(task_id: str, limit: float | None, call: Any) -> Any:
        return await call

    return async_to_sync(executor.run_async)(task, watched)


@contextmanager
def receiving(signal: Any) -> Iterator[list[tuple[Any, Any, Any]]]:
    """Collect (sender, result, class of the exception that is being handled)."""
    received = []

    def receiver(sender: Any, task_result: Any, **kwargs: Any) -> None:
        received.append((sender, task_result, sys.exc_info()[0]))

    signal.connect(receiver)
    try:
        yield received
    finally:
        signal.disconnect(receiver)


@contextmanager
def aliases(**options: Any) -> Iterator[None]:
    params = {"BACKEND": "django_jobs.backend.JobsBackend", **options}
    with override_settings(TASKS={"default": params}):
        yield


# -- the module --------------------------------------------------------------------


def python(code: str) -> str:
    """Run code in a process of its own, where nothing is imported yet."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent.parent,
        timeout=60,
        check=False,
    )
    return done.stdout + done.stderr


def test_a_task_may_be_declared_before_the_apps_are_ready() -> None:
    framework = "django.tasks" if django.VERSION >= (6, 0) else "django_tasks"
    output = python(
        "from django.conf import settings; settings.configure(TASKS={'default': {"
        "'BACKEND': 'django_jobs.backend.JobsBackend', 'QUEUES': []}})\n"
        f"from {framework} import task; import json.tool, sys\n"
        "print(task(json.tool.main).using(priority=3))\n"
        "print('django_jobs.models' in sys.modules)"
    )
    assert "JobsTask(" in output
    assert output.endswith("False\n")


@pytest.mark.skipif(django.VERSION >= (6, 0), reason="Django has tasks itself")
def test_without_the_backport_the_error_says_what_to_install() -> None:
    output = python(
        "import sys; sys.modules['django_tasks'] = None\n"
        "from django.conf import settings; settings.configure()\n"
        "import django_jobs.backend"
    )
    assert "ImproperlyConfigured" in output
    assert "pip install 'django-jobworker[backport]'" in output


def test_everything_is_supported() -> None:
    backend = task_backends["default"]
    assert isinstance(backend, JobsBackend)
    assert isinstance(tasks.add, JobsTask)
    assert backend.supports_defer
    assert backend.supports_async_task
    assert backend.supports_get_result
    assert backend.supports_priority


# -- enqueue and get_result --------------------------------------------------------


def test_enqueue_returns_what_get_result_returns(
    django_assert_num_queries: Any,
) -> None:
    for task in (tasks.add, tasks.aadd):
        result = task.enqueue(1, right=2)
        assert result.status == Status.READY
        assert not result.is_finished
        assert (result.started_at, result.finished_at) == (None, None)
        assert result.last_attempted_at is None
        assert result.enqueued_at is not None
        assert result.task is task
        assert (result.args, result.kwargs) == ([1], {"right": 2})
        assert (result.attempts, result.errors, result.backend) == (0, [], "default")
        assert len(result.id) < 64
        with django_assert_num_queries(1):
            assert task.get_result(result.id) == result
        with pytest.raises(ValueError, match="Task has not finished yet"):
            _ = result.return_value


def test_results_are_equal_whatever_using_was_given() -> None:
    for options in (
        {"run_after": timezone.now() + timedelta(hours=1)},
        {"run_after": timezone.now() - timedelta(hours=1)},
        {"run_after": timedelta(minutes=5)},
        {"run_after": 300, "expires": 60},
        {"expires": timezone.now() + timedelta(hours=2), "max_attempts": 4},
        {"priority": -7, "queue_name": "mail", "backend": "late"},
        {"time_limit": timedelta(seconds=3), "metadata": {"trace": (1, 2)}},
    ):
        result = tasks.add.using(**options).enqueue(1)
        assert tasks.add.get_result(result.id) == result, options


def test_the_async_methods_do_the_same() -> None:
    @async_to_sync
    async def both() -> tuple[Any, Any]:
        result = await tasks.aadd.aenqueue(1)
        await result.arefresh()
        return result, await tasks.aadd.aget_result(result.id)

    enqueued, fetched = both()
    assert enqueued == fetched


def test_a_result_is_a_dataclass_that_can_be_copied() -> None:
    result = tasks.add.using(run_after=60).enqueue(1)
    assert dataclasses.asdict(result)["task"]["_delay"] == 60
    assert dataclasses.replace(result) == result


@pytest.mark.skipif(django.VERSION < (6, 1), reason="tasks are not pickled before")
def test_tasks_and_results_are_pickled() -> None:
    result = tasks.add.using(run_after=60, metadata={"trace": 1}).enqueue(1)
    assert pickle.loads(pickle.dumps(result)) == result  # noqa: S301 - our own


def test_what_the_caller_changes_afterwards_changes_nothing() -> None:
    numbers = [1]
    result = tasks.echo.enqueue(numbers)
    numbers.append(2)
    assert result.args == [[1]]


def test_a_missing_result_does_not_exist() -> None:
    for missing in (str(uuid.uuid4()), "123", "None"):
        with pytest.raises(api.TaskResultDoesNotExist, match=missing):
            tasks.add.get_result(missing)


def test_the_result_of_another_task_is_a_mismatch() -> None:
    result = tasks.aadd.enqueue(1)
    with pytest.raises(Exception, match="Task does not match") as caught:
        tasks.add.get_result(result.id)
    assert type(caught.value).__name__ == "TaskResultMismatch"


def test_a_stored_name_is_never_imported() -> None:
    result = tasks.add.enqueue(1)
    for name in ("tests.thirdparty.unloaded.run", "subprocess.run", "nonsense", "a.b"):
        Task.objects.filter(pk=result.id).update(name=name)
        with pytest.raises(api.TaskResultDoesNotExist, match=result.id):
            task_backends["default"].get_result(result.id)
        assert find_definition(name) is None
    assert "tests.thirdparty.unloaded" not in sys.modules


@override_settings(USE_TZ=False)
def test_without_time_zones_times_are_naive() -> None:
    result = tasks.add.using(run_after=datetime(2040, 1, 2)).enqueue(1)
    assert result.enqueued_at is not None
    assert result.enqueued_at.tzinfo is None
    assert tasks.add.get_result(result.id) == result
    assert Task.objects.get().run_after == datetime(2040, 1, 2)


# -- arguments ---------------------------------------------------------------------


def test_arguments_are_plain_json() -> None:
    result = tasks.echo.enqueue((1, 2), b"text", {1: "a", None: 2}, range(2), nul="\0")
    assert result.args == [[1, 2], "text", {"1": "a", "null": 2}, [0, 1]]
    assert tasks.echo.get_result(result.id) == result
    run_due()
    result.refresh()
    assert result.return_value == [result.args, {"nul": "\0"}]


def test_what_is_no_json_is_refused_before_any_sql(
    django_assert_num_queries: Any,
) -> None:
    circle: list[Any] = []
    circle.append(circle)
    with django_assert_num_queries(0):
        for value in (datetime.now(UTC), {1, 2}, object(), uuid.uuid4()):
            with pytest.raises(TypeError, match="Unsupported type: <class"):
                tasks.echo.enqueue({"deep": [value]})
        with pytest.raises(ValueError, match=r"args\[0\]: Unsupported value"):
            tasks.echo.enqueue(b"\xff")
        for odd in (math.nan, math.inf, circle):
            with pytest.raises(InvalidArguments):
                tasks.echo.enqueue(odd)
        with pytest.raises(TypeError, match="missing a required argument"):
            tasks.add.enqueue()


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        (datetime(2040, 1, 1), "kwargs['a'][1]['when']: Unsupported type: <class 'dat"),
        (Decimal(1), "; pass text, or declare the task with @task of django_jobs"),
        (uuid.uuid4(), "; pass text, or declare the task with @task of django_jobs"),
        ({1}, "kwargs['a'][1]['when']: Unsupported type: <class 'set'>"),
    ],
)
def test_what_is_no_json_is_named_with_its_task_and_path(
    argument: Any, words: str
) -> None:
    with pytest.raises(TypeError) as caught:
        tasks.echo.enqueue(1, a=[2, {"when": argument}])
    assert str(caught.value).startswith("task tests.thirdparty.tasks.echo: kwargs['a']")
    assert words in str(caught.value)


def test_a_task_of_a_script_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(find_definition(tasks.add.module_path), "name", "__main__.add")
    with pytest.raises(api.InvalidTask, match="which no worker imports"):
        tasks.add.using(priority=3).enqueue(1)


# -- validation --------------------------------------------------------------------


def test_the_queues_of_the_alias_are_asked_at_every_step() -> None:
    message = "Queue 'default' is not valid for backend."
    with pytest.raises(api.InvalidTask, match=message):
        tasks.add.using(backend="strict")
    with aliases(QUEUES=["mail"]):
        with pytest.raises(api.InvalidTask, match=message):
            tasks.add.enqueue(1)
        with pytest.raises(api.InvalidTask, match=message):
            async_to_sync(tasks.aadd.aenqueue)(1)
    strict = tasks.add.using(backend="strict", queue_name="mail")
    assert strict.enqueue(1).task.queue_name == "mail"
    with aliases():
        assert tasks.add.using().enqueue(1).task.queue_name == "default"


@override_settings(DJANGO_JOBS={"QUEUES": ["mail"]})
def test_the_queues_of_django_jobs_hold_as_well() -> None:
    with pytest.raises(api.InvalidTask, match="not among DJANGO_JOBS"):
        tasks.add.enqueue(1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"priority": 101}, "priority must be a whole number between -100 and 100."),
        ({"priority": 3.1}, "priority must be a whole number between -100 and 100."),
        ({"run_after": datetime(2040, 1, 1)}, "run_after must be an aware datetime."),
        ({"max_attempts": 0}, "max_attempts must be a whole number from 1"),
        ({"time_limit": -1}, "time_limit must be"),
        ({"expires": "soon"}, "expires must be"),
        ({"on_commit": "nowhere"}, "on_commit must be"),
        ({"metadata": [("a", 1)]}, "metadata must be a dict."),
        ({"metadata": {1: "a"}}, "metadata keys must be strings."),
        ({"metadata": {"a": object()}}, "metadata must be JSON-serializable"),
    ],
)
def test_using_refuses_what_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(api.InvalidTask) as caught:
        tasks.add.using(**options)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"retry_on": "ValueError"}, "retry_on must be an exception class"),
        ({"soft_time_limit": 9, "time_limit": 5}, "soft_time_limit"),
        ({"sensitive": ["riht"]}, "Did you mean 'right'?"),
        ({"takes_context": True}, "does not have a first argument of 'context'."),
    ],
)
def test_a_declaration_that_cannot_work_is_refused(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(api.InvalidTask) as caught:
        declare(**options)
    assert message in str(caught.value)


def test_functions_that_a_worker_cannot_find_are_refused() -> None:
    for function in (any, lambda: None, datetime.now):
        with pytest.raises(api.InvalidTask, match="at a module level"):
            declare(function)


# -- our options -------------------------------------------------------------------


@pytest.mark.skipif(
    django.VERSION[:2] == (6, 0), reason="its decorator takes no further options"
)
def test_the_decorator_takes_our_options() -> None:
    declared: Any = tasks.task(max_attempts=5, sensitive=["left"])(plain_function)
    assert declared.max_attempts == 5


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("max_atempts", ". Did you mean 'max_attempts'?"),
        ("bind", "; write @task(takes_context=True)"),
        ("queue", '; write @task(queue_name="mail")'),
        ("retries", "; write @task(max_attempts=4), the first attempt included"),
        ("countdown", "; write using(run_after=60)"),
        ("delay", "; write using(run_after=60)"),
        ("rate_limit", ": there are no rate limits yet."),
        ("nothing", ". The options are priority, queue_name, backend, takes_context, "),
    ],
)
@pytest.mark.parametrize("way", ["class", "decorator"])
def test_an_option_that_there_is_not_is_answered_with_ours(
    option: str, words: str, way: str
) -> None:
    if way == "decorator" and django.VERSION[:2] == (6, 0):
        pytest.skip("its decorator takes no further options")
    make: Any = declare if way == "class" else lambda f, **o: tasks.task(**o)(f)
    with pytest.raises(TypeError) as caught:
        make(plain_function, **{option: True})
    start = f"@task {__name__}.plain_function: there is no option {option!r}{words}"
    assert str(caught.value).startswith(start)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("delay", "; write add.enqueue(...)"),
        ("apply_async", "; write add.using(...).enqueue(...)"),
        ("s", ""),
        ("si", ""),
        ("nothing", ""),
    ],
)
def test_an_attribute_of_other_tasks_is_answered_with_what_there_is(
    name: str, words: str
) -> None:
    assert not hasattr(tasks.add, name)
    message = f"'JobsTask' object has no attribute {name!r}{words}"
    with pytest.raises(AttributeError, match=f"^{re.escape(message)}$"):
        getattr(tasks.add, name)


def write_and_fail() -> None:
    Queue.objects.create(name="half")
    raise ValueError("half way")


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("is_atomic", [False, True])
def test_a_direct_call_of_an_atomic_task_rolls_back(
    is_async: bool, is_atomic: bool
) -> None:
    task = declare(write_and_fail, atomic=is_atomic)
    call = async_to_sync(task.acall) if is_async else task.call
    with pytest.raises(ValueError, match="half way"):
        call()
    assert Queue.objects.exists() is not is_atomic
    other = declare(in_transaction, atomic=True, backend="other")
    assert other.call() == [False, True]


def in_transaction() -> list[bool]:
    return [connections[alias].in_atomic_block for alias in ("default", "other")]


def test_the_worker_finds_the_options_of_the_declaration() -> None:
    task = declare(
        max_attempts=5,
        backoff=[1, 2],
        retry_on=[ValueError],
        give_up_on=KeyError,
        time_limit=timedelta(minutes=1),
        soft_time_limit=50,
        result_retention=None,
        store_result=False,
        sensitive=["right"],
    )
    definition = get_definition(task.module_path)
    assert definition.max_attempts == 5
    assert definition.policy.gives_up_on(KeyError())
    assert definition.policy.delay(2, ValueError()) == 2
    assert (definition.time_limit, definition.soft_time_limit) == (60, 50)
    assert definition.result_retention is None
    assert not definition.store_result
    task.enqueue(1, right=2)
    assert Task.objects.get().summary == "1, right=***"
    assert Task.objects.get().max_attempts == 5


def test_a_copy_by_using_does_not_change_the_declaration() -> None:
    task = declare(third_function, max_attempts=5, time_limit=10)
    before = get_definition(task.module_path)
    copy = task.using(max_attempts=2, time_limit=3, queue_name="mail", priority=9)
    copy.enqueue(1)
    row = Task.objects.get()
    assert (row.max_attempts, row.time_limit, row.priority) == (2, 3, 9)
    assert row.queue_name == "mail"
    assert get_definition(task.module_path) is before
    assert (before.max_attempts, before.time_limit) == (5, 10)
    declare(third_function, soft_time_limit=4)
    assert get_definition(task.module_path).soft_time_limit == 4


def test_tasks_are_equal_and_hashable_by_their_options() -> None:
    task = declare(backoff=[1], retry_on=[ValueError], sensitive={"left"})
    assert task.using() == task
    assert hash(task.using(metadata={"trace": 1})) == hash(task)
    assert task.using(metadata={"trace": 1}) != task
    assert declare().result_retention is UNSET


def test_using_takes_durations_and_keeps_what_it_is_not_given() -> None:
    later = tasks.add.using(run_after=timedelta(minutes=5), priority=4)
    assert (later.run_after, later._delay, later.priority) == (None, 300, 4)
    assert later.using(max_attempts=2)._delay == 300
    moment = timezone.now() + timedelta(days=1)
    assert later.using(run_after=moment)._delay is None
    result = later.using(run_after=0.5).enqueue(1)
    assert result.status == Status.READY
    assert Task.objects.get().state == State.SCHEDULED
    with pytest.raises(TypeError, match=r"'piority'. Did you mean 'priority'\?"):
        tasks.add.using(piority=3)


def test_a_task_of_djangos_contract_is_tried_once() -> None:
    tasks.add.enqueue(1)
    assert Task.objects.get().max_attempts == 1
    strict = tasks.add.using(backend="strict", queue_name="mail")
    strict.enqueue(1)
    assert Task.objects.get(queue_name="mail").max_attempts == 7


def test_the_alias_says_where_the_queue_is() -> None:
    result = tasks.add.using(backend="other").enqueue(1, 2)
    assert not Task.objects.exists()
    assert Task.objects.using("other").count() == 1
    run_due("other")
    result.refresh()
    assert result.return_value == 3
    with pytest.raises(api.TaskResultDoesNotExist):
        tasks.add.get_result(result.id)


# -- transactions and task_enqueued ------------------------------------------------


def test_task_enqueued_is_sent_by_enqueue_itself() -> None:
    with (
        receiving(api.task_enqueued) as theirs,
        receiving(signals.task_enqueued) as our,
    ):
        with transaction.atomic():
            result = tasks.add.enqueue(1)
            assert result.enqueued_at is not None
            assert [each[:2] for each in theirs] == [(JobsBackend, result)]
            assert our == []
        assert [each[1].id for each in our] == [result.id]
        tasks.add.using(backend="strict", queue_name="mail").enqueue(2)
    assert len(theirs) == 2


def test_a_receiver_that_raises_hinders_nobody(caplog: Any) -> None:
    def receiver(**kwargs: Any) -> None:
        raise RuntimeError("a broken receiver")

    for signal in (api.task_enqueued, api.task_started, api.task_finished):
        signal.connect(receiver)
    try:
        result = tasks.add.enqueue(1)
        run_due()
    finally:
        for signal in (api.task_enqueued, api.task_started, api.task_finished):
            signal.disconnect(receiver)
    result.refresh()
    assert result.return_value == 1
    assert caplog.text.count("RuntimeError: a broken receiver") == 3


def test_an_alias_may_insert_at_the_end_of_the_transaction() -> None:
    with transaction.atomic():
        result = tasks.add.using(backend="late").enqueue(1)
        at_once = tasks.add.using(backend="late", on_commit=False).enqueue(2)
        assert result.enqueued_at is None
        assert [str(pk) for pk in Task.objects.values_list("pk")] != []
        assert Task.objects.get().id == uuid.UUID(at_once.id)
    result.refresh()
    assert result.enqueued_at is not None
    assert tasks.add.get_result(result.id) == result


def test_a_refused_task_leaves_the_transaction_usable() -> None:
    with transaction.atomic():
        with pytest.raises(TypeError):
            tasks.add.enqueue(object())
        with pytest.raises(EnqueueError):
            tasks.add.enqueue("x" * 300_000)
        tasks.add.enqueue(1)
    assert Task.objects.count() == 1


# -- the run -----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["add", "aadd"])
def test_a_run_is_told_by_djangos_signals(name: str) -> None:
    result = getattr(tasks, name).enqueue(1, right=2)
    with (
        receiving(api.task_started) as started,
        receiving(api.task_finished) as finished,
    ):
        run_due()
    [(sender, running, _)] = started
    assert (sender, running.id, running.status) == (
        JobsBackend,
        result.id,
        Status.RUNNING,
    )
    assert (running.attempts, running.finished_at) == (1, None)
    [(sender, done, error)] = finished
    assert (sender, done.status, error) == (JobsBackend, Status.SUCCESSFUL, None)
    assert done.return_value == 3
    result.refresh()
    assert result.return_value == 3
    assert result.attempts == len(result.worker_ids) == 1
    assert result.enqueued_at <= result.started_at <= result.finished_at
    assert result.started_at == result.last_attempted_at


def test_telling_of_a_first_run_costs_no_query_until_somebody_looks(
    django_assert_num_queries: Any,
) -> None:
    enqueued = tasks.add.enqueue(1, right=2)
    claimed = Hands().claim()
    with (
        receiving(api.task_started) as started,
        receiving(api.task_finished) as finished,
        override_settings(DJANGO_JOBS={"MIDDLEWARE": []}),
        django_assert_num_queries(0),
    ):
        Executor(str(uuid.uuid4()), "default", Interruptions()).run(claimed)
    stored = tasks.add.get_result(enqueued.id)
    [(_, running, _)], [(_, done, _)] = started, finished
    for told in (running, done):
        assert told.task == enqueued.task
        assert told.args == enqueued.args
        assert told.enqueued_at == enqueued.enqueued_at
        assert told.started_at == told.last_attempted_at == stored.started_at
    assert done.finished_at >= done.started_at
    with pytest.raises(AttributeError):
        _ = running.nonsense


@pytest.mark.parametrize("name", ["fail", "afail"])
def test_a_failure_is_told_while_its_exception_is_handled(
    name: str, caplog: Any
) -> None:
    result = getattr(tasks, name).enqueue()
    with receiving(api.task_finished) as finished:
        run_due()
    [(sender, done, error)] = finished
    assert (sender, done.status, error) == (JobsBackend, Status.FAILED, ValueError)
    assert "state=FAILED" in caplog.text
    result.refresh()
    assert (result.status, result.attempts) == (Status.FAILED, 1)
    with pytest.raises(ValueError, match="Task failed"):
        _ = result.return_value
    [error] = result.errors
    assert error.exception_class is ValueError
    assert error.traceback.endswith(f"ValueError: {FAILURE}\n")
    assert done.errors == result.errors


def test_only_the_last_attempt_finishes_the_task() -> None:
    task = declare(other_function, max_attempts=2, backoff=[0.001])
    result = task.enqueue()
    run_due()
    assert task.get_result(result.id).status == Status.SUCCESSFUL
    result = tasks.fail.using(max_attempts=2).enqueue()
    with receiving(api.task_finished) as finished:
        run_due()
        result.refresh()
        assert (result.status, len(result.errors)) == (Status.READY, 1)
        assert finished == []
        Task.objects.update(state=State.READY)
        run_due()
    result.refresh()
    assert (result.status, result.attempts) == (Status.FAILED, 2)
    assert [each[1].status for each in finished] == [Status.FAILED]


def test_who_wants_to_wait_is_shown_how() -> None:
    result = tasks.add.enqueue(1, 2)
    assert not hasattr(result, "get")
    with pytest.raises(AttributeError, match=r"fetch_result\(result\.id\)\.get\(timeo"):
        result.get(timeout=10)
    run_due()
    assert fetch_result(result.id).get(timeout=10) == 3


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("state", "; write result.status"),
        ("ready", "; write result.is_finished"),
        ("successful", "; write result.status == TaskResultStatus.SUCCESSFUL"),
        ("wait", "; write django_jobs.fetch_result(result.id).get(timeout=10)"),
        ("nothing", ""),
    ],
)
def test_an_attribute_of_other_results_is_answered_with_what_there_is(
    name: str, words: str
) -> None:
    result = tasks.add.enqueue(1)
    assert not hasattr(result, name)
    message = f"'JobsTaskResult' object has no attribute {name!r}{words}"
    with pytest.raises(AttributeError, match=f"^{re.escape(message)}$"):
        getattr(result, name)


def test_a_value_that_is_no_json_fails_the_task_at_once() -> None:
    result = tasks.odd_value.using(max_attempts=3).enqueue()
    run_due()
    assert DeadLetter.objects.get().reason == Reason.RESULT
    result.refresh()
    assert result.status == Status.FAILED
    assert result.errors[0].exception_class is TypeError
    assert "Unsupported type" in result.errors[0].traceback


def test_revoked_and_expired_tasks_failed_by_our_exceptions() -> None:
    revoked, expired = tasks.add.enqueue(1), tasks.add.using(expires=60).enqueue(2)
    get_store().revoke([revoked.id])
    Task.objects.update(expires=timezone.now() - timedelta(hours=1))
    run_due()
    Result.objects.exclude(pk=revoked.id).update(state=State.EXPIRED)
    for result, name in ((revoked, "TaskRevoked"), (expired, "TaskExpired")):
        result.refresh()
        assert (result.status, result.is_finished) == (Status.FAILED, True)
        [error] = result.errors
        assert error.exception_class.__name__ == name


def test_a_blocked_task_shows_as_ready() -> None:
    result = tasks.add.enqueue(1)
    Task.objects.update(state=State.BLOCKED)
    assert tasks.add.get_result(result.id).status == Status.READY


def test_a_state_that_there_is_not_is_named_with_its_task() -> None:
    result = tasks.add.enqueue(1)
    Task.objects.update(state="ODD")
    for look in (result.refresh, lambda: tasks.add.get_result(result.id)):
        with pytest.raises(UnknownState, match=f"{result.id} has the state 'ODD'"):
            look()


def test_a_dead_letter_without_an_error_says_why() -> None:
    result = tasks.add.enqueue(1)
    task = Task.objects.get()
    DeadLetter.objects.create(
        id=task.id,
        name=task.name,
        queue_name=task.queue_name,
        enqueued_at=task.enqueued_at,
        run_after=task.run_after,
        finished_at=task.run_after,
        reason="no worker knows this task",
    )
    task.delete()
    result.refresh()
    assert "no worker knows this task" in result.errors[0].traceback


# -- the context and metadata ------------------------------------------------------


@pytest.mark.parametrize("name", ["tell", "atell"])
def test_a_task_gets_djangos_context(name: str) -> None:
    result = getattr(tasks, name).enqueue(1)
    run_due()
    result.refresh()
    assert result.return_value == [result.id, True]


def test_metadata_of_using_reaches_the_task_and_comes_back() -> None:
    given = {"trace": 1, "_lib": 2}
    result = tasks.note.using(metadata=given, run_after=0.0).enqueue(new=3, _lib="x")
    run_due()
    result.refresh()
    assert result.return_value == {"trace": 1, "new": 3, "_lib": "x"}
    assert result.metadata == {"trace": 1, "new": 3}
    assert result.raw_metadata == {"trace": 1, "new": 3, "_lib": 2}


def test_metadata_is_saved_halfway_and_by_a_run_that_fails() -> None:
    saved, failed = tasks.save_halfway.enqueue(), tasks.note_and_fail.enqueue(new=1)
    asynchronous, nonsense = tasks.anote.enqueue(new=2), tasks.note_nonsense.enqueue()
    run_due()
    for result in (saved, failed, asynchronous, nonsense):
        result.refresh()
    assert saved.return_value == [True, False, {"half": True}]
    assert (failed.status, failed.metadata) == (Status.FAILED, {"new": 1})
    assert asynchronous.return_value == asynchronous.metadata == {"new": 2}
    assert nonsense.errors[0].exception_class is TypeError
    assert nonsense.metadata == {}


# -- tasks of other places ---------------------------------------------------------


def test_a_task_declared_for_another_backend_is_found_where_it_is() -> None:
    assert not isinstance(tasks.travel, JobsTask)
    result = tasks.travel.using(backend="default").enqueue()
    assert isinstance(result, JobsTaskResult)
    fetched = task_backends["default"].get_result(result.id)
    assert fetched == result
    assert fetched.task.backend == "default"
    run_due()
    result.refresh()
    assert result.return_value == "arrived"


def test_modules_of_the_options_are_loaded_with_the_app() -> None:
    assert find_definition("tests.thirdparty.elsewhere.hidden") is not None


# -- with a worker -----------------------------------------------------------------


@pytest.mark.processes
def test_a_worker_runs_tasks_of_djangos_decorator(
    worker_env: dict[str, str], tmp_path: Path
) -> None:
    results = [tasks.add.enqueue(1, 2), tasks.aadd.enqueue(3), tasks.fail.enqueue()]
    results.append(tasks.travel.using(backend="default").enqueue())
    log = tmp_path / "signals.txt"
    command = [sys.executable, "-m", "django", "jobworker", "--burst"]
    worker = subprocess.run(
        [*command, "--processes", "1"],
        env={**worker_env, "THIRDPARTY_SIGNALS": str(log)},
        timeout=60,
        capture_output=True,
        text=True,
        check=False,
    )
    assert worker.returncode == 0, worker.stderr
    for result in results:
        result.refresh()
    assert [result.return_value for result in (*results[:2], results[3])] == [
        3,
        3,
        "arrived",
    ]
    assert results[2].errors[0].exception_class is ValueError
    assert sorted(log.read_text().splitlines()) == [
        "aadd RUNNING JobsBackend -",
        "aadd SUCCESSFUL JobsBackend -",
        "add RUNNING JobsBackend -",
        "add SUCCESSFUL JobsBackend -",
        "fail FAILED JobsBackend ValueError",
        "fail RUNNING JobsBackend -",
        "travel RUNNING JobsBackend -",
        "travel SUCCESSFUL JobsBackend -",
    ]
