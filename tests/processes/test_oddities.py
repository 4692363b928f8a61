"""Errors and results that cannot be looked at: each fails its own task alone."""

from __future__ import annotations

import pytest

from django_jobs import enqueue_many
from django_jobs.models import Attempt, DeadLetter
from django_jobs.states import Reason
from tests.processes import oddities, tasks
from tests.processes.conftest import StartWorker
from tests.processes.harness import WorkerProcess, census, finished, wait_for

pytestmark = pytest.mark.django_db(transaction=True)

#: Python itself wraps them where they leave a coroutine.
WRAPPED = {"the end of an iterator": "RuntimeError"}


def _assert_unharmed(worker: WorkerProcess, children: list[int]) -> None:
    """The same processes run the next task, and have complained of nothing."""
    assert tasks.add.enqueue(1, 1).get(timeout=20) == 2
    assert worker.children() == children
    for event in ("child_gone", "slot_failed", "loop_failed", "uncaught"):
        assert f"event={event}" not in worker.output()
    assert not Attempt.objects.filter(verdict="crashed").exists()


def test_an_error_that_cannot_be_looked_at_is_a_failure_like_others(
    start_worker: StartWorker,
) -> None:
    worker = start_worker("--processes", "1")
    children = worker.children()
    expected: dict[str, tuple[str, str]] = {}
    for name, kinds in oddities.ERRORS.items():
        for kind in kinds:
            expected[oddities.raise_odd.enqueue(kind).id] = kind, name
            name_there = WRAPPED.get(kind, name)
            expected[oddities.async_raise_odd.enqueue(kind).id] = kind, name_there
    wait_for(finished(len(expected)), 25)
    letters = {str(each.pk): each for each in DeadLetter.objects.all()}
    wrong = [
        (kind, letters[key].exception_class, letters[key].message[:100])
        for key, (kind, name) in expected.items()
        if letters[key].exception_class.rpartition(".")[2] != name
    ]
    assert wrong == []
    assert all(len(each.traceback) < 70_000 for each in letters.values())
    _assert_unharmed(worker, children)


def test_a_value_that_cannot_be_stored_is_a_failure_with_the_reason(
    start_worker: StartWorker,
) -> None:
    worker = start_worker("--processes", "1")
    children = worker.children()
    returning = (oddities.return_refused, oddities.async_return_refused)
    calls = [each.s(kind) for each in returning for kind in oddities.REFUSED]
    kinds = [*oddities.REFUSED, *oddities.REFUSED]
    refused = dict(zip([one.id for one in enqueue_many(calls)], kinds, strict=True))
    coroutine = oddities.return_coroutine.enqueue()
    wait_for(finished(len(refused) + 1), 60)
    letters = {str(each.pk): each for each in DeadLetter.objects.all()}
    for key, kind in refused.items():
        # The work is done: it is not done again for a value that is the same.
        assert (letters[key].reason, letters[key].attempt) == (Reason.RESULT, 1), kind
        assert oddities.REFUSED[kind][1] in letters[key].message, kind
    assert "coroutine is no JSON type" in letters[coroutine.id].message
    _assert_unharmed(worker, children)


def test_a_value_that_no_database_takes_comes_back_as_it_was(
    start_worker: StartWorker,
) -> None:
    worker = start_worker("--processes", "1")
    children = worker.children()
    # As a result alone, and as an argument that becomes the result.
    made = {kind: oddities.return_kept.enqueue(kind) for kind in oddities.KEPT}
    given = {
        kind: oddities.give_back.enqueue(value, **{"a\0\ud800": value})
        for kind, (value, _) in oddities.KEPT.items()
    }
    for kind, (_, expected) in oddities.KEPT.items():
        for result in (made[kind], given[kind]):
            value = result.get(timeout=20)
            # By their texts: 1, 1.0 and True are equal, whatever the order of keys.
            assert repr(value) == repr(expected), kind
    assert census()["dead letters"] == 0
    _assert_unharmed(worker, children)


def test_metadata_and_progress_take_what_a_result_takes(
    start_worker: StartWorker,
) -> None:
    worker = start_worker("--processes", "1")
    children = worker.children()
    kept = {kind: oddities.note.enqueue(kind, "metadata") for kind in oddities.KEPT}
    told = [oddities.note.enqueue(kind, "progress") for kind in oddities.KEPT]
    refused = {
        kind: oddities.note.using(max_attempts=1).enqueue(kind, "metadata")
        for kind in oddities.REFUSED
    }
    wait_for(finished(len(kept) + len(told) + len(refused)), 60)
    for kind, result in kept.items():
        result.refresh()
        expected = {"value": oddities.KEPT[kind][1]}
        assert repr(result.metadata) == repr(expected), kind
    dead = set(map(str, DeadLetter.objects.values_list("pk", flat=True)))
    assert dead == {result.id for result in refused.values()}
    _assert_unharmed(worker, children)


def test_a_text_of_an_error_that_no_database_takes_is_escaped(
    start_worker: StartWorker,
) -> None:
    worker = start_worker("--processes", "1")
    children = worker.children()
    texts = [value for value, _ in oddities.KEPT.values() if isinstance(value, str)]
    ids = {oddities.fail_with.enqueue(text).id: text for text in texts}
    wait_for(finished(len(ids)))
    for letter in DeadLetter.objects.all():
        text = ids[str(letter.pk)]
        plain = text.replace("\0", "\\x00").encode(errors="backslashreplace").decode()
        assert letter.message == plain
        assert plain in letter.traceback
    _assert_unharmed(worker, children)
