"""Tasks of another release: unknown and renamed ones, arguments that do not fit."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.core.management import call_command
from django.utils import timezone

from django_jobs.control import requeue
from django_jobs.definitions import TaskDefinition
from django_jobs.models import Attempt, DeadLetter, Result, Task
from django_jobs.states import Reason, State
from tests.processes import oddities, tasks
from tests.processes.conftest import StartWorker
from tests.processes.harness import finished, wait_for

pytestmark = pytest.mark.django_db(transaction=True)

OLD_NAME = "shop.tasks.renamed_since"


def test_a_task_under_an_old_name_waits_in_sight_and_is_told_once(
    start_worker: StartWorker, capsys: pytest.CaptureFixture[str]
) -> None:
    results = [tasks.noop.enqueue() for _ in range(3)]
    Task.objects.update(name=OLD_NAME)
    worker = start_worker("--processes", "1")
    assert tasks.add.enqueue(1, 1).get(timeout=20) == 2
    wait_for(lambda: Task.objects.filter(unknown_since__isnull=False).count() == 3)
    # No attempt is used, and nobody has to look for it.
    assert set(Task.objects.values_list("state", "attempt")) == {(State.SCHEDULED, 0)}
    assert worker.output().count("event=unknown_task") == 1
    call_command("jobs", "list", "--task", OLD_NAME)
    assert results[0].id in capsys.readouterr().out
    # With the name back, in the next release, it runs.
    Task.objects.update(name=tasks.noop.name)
    for result in results:
        result.get(timeout=20)


def test_a_task_that_no_worker_knows_for_a_day_is_a_dead_letter(
    start_worker: StartWorker,
) -> None:
    result = tasks.noop.enqueue()
    Task.objects.update(
        name=OLD_NAME, unknown_since=timezone.now() - timedelta(hours=25)
    )
    start_worker("--processes", "1")
    assert tasks.add.enqueue(1, 1).get(timeout=20) == 2
    wait_for(DeadLetter.objects.exists)
    letter = DeadLetter.objects.get()
    assert (str(letter.pk), letter.name) == (result.id, OLD_NAME)
    assert (letter.reason, letter.attempt) == (Reason.UNKNOWN_TASK, 0)
    # Mended by hand, or by a release that knows the name, it is put back to work.
    DeadLetter.objects.update(name=tasks.noop.name)
    requeue([result.id])
    result.get(timeout=20)


MISFITS: list[tuple[TaskDefinition[..., Any], str, str, str]] = [
    (tasks.add, "[1]", "{}", "missing 1 required positional argument: 'right'"),
    (tasks.add, "[1, 2, 3]", "{}", "takes 2 positional arguments but 3 were given"),
    (tasks.add, "[1, 2]", '{"third": 3}', "unexpected keyword argument 'third'"),
    (tasks.add, "[1, 2]", '{"left": 3}', "multiple values for argument 'left'"),
    (tasks.async_sleep, "[]", "{}", "missing 1 required positional argument"),
    (tasks.note_atomically, "[]", "{}", "missing 3 required positional arguments"),
    (tasks.create_queue, "[]", '{"": 1}', "unexpected keyword argument ''"),
]


def test_arguments_of_another_release_fail_with_the_reason_and_may_be_tried_again(
    start_worker: StartWorker,
) -> None:
    expected = {}
    for task, args, kwargs, words in MISFITS:
        result = oddities.give_back.using(max_attempts=1).enqueue(0)
        columns = {"name": task.name, "args": args, "kwargs": kwargs}
        Task.objects.filter(pk=result.id).update(**columns)
        expected[result.id] = words
    again = oddities.give_back.using(max_attempts=2).enqueue(0)
    Task.objects.filter(pk=again.id).update(kwargs='{"value": 1}')
    worker = start_worker("--processes", "1")
    assert tasks.add.enqueue(1, 1).get(timeout=20) == 2
    wait_for(lambda: DeadLetter.objects.count() == len(expected))
    for letter in DeadLetter.objects.all():
        assert letter.exception_class == "builtins.TypeError"
        assert expected[str(letter.pk)] in letter.message
        assert letter.reason == Reason.ATTEMPTS
    # The release that fits comes before the next attempt does.
    wait_for(lambda: Attempt.objects.filter(task_id=again.id, verdict="retry"))
    Task.objects.filter(pk=again.id).update(kwargs="{}", run_after=timezone.now())
    assert again.get(timeout=20) == 0
    assert Result.objects.get(pk=again.id).attempt == 2
    assert worker.process.poll() is None
    wait_for(finished(len(expected) + 2))
