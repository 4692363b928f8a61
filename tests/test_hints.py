"""The hints for users of other task queues name what there is here."""

from __future__ import annotations

import re

import pytest

from django_jobs import definitions, exceptions, hints
from django_jobs.options import _ENQUEUE_CHECKS, _TASK_CHECKS
from tests.sampleapp import tasks

OPTIONS = _TASK_CHECKS.keys() | _ENQUEUE_CHECKS.keys()


def test_every_option_has_an_example_of_its_own() -> None:
    assert hints._EXAMPLES.keys() == OPTIONS
    for option, example in hints._EXAMPLES.items():
        assert example.startswith(f"{option}=")
        checks = _TASK_CHECKS | _ENQUEUE_CHECKS
        value = eval(example.partition("=")[2])  # noqa: S307
        assert checks[option](value) is not None


def test_no_word_of_ours_is_taken_for_one_of_others() -> None:
    assert not OPTIONS & hints._OURS.keys()
    assert hints._ELSEWHERE.keys() <= OPTIONS
    assert not [name for name in hints._INSTEAD if hasattr(tasks.add, name)]


def test_what_is_to_be_written_instead_exists() -> None:
    for words in hints._ATTRIBUTES:
        for name in re.findall(r"\{task\}\.(\w+)", words):
            assert hasattr(tasks.add, name), words
        for name in re.findall(r"^(?:raise )?(\w+)\(", words):
            assert hasattr(definitions, name) or hasattr(exceptions, name), words


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("delay", "add.enqueue(...)"),
        ("send", "add.enqueue(...)"),
        ("apply_async", "add.using(...).enqueue(...)"),
        ("schedule", "add.using(run_after=60).enqueue(...)"),
        ("si", "add.s(...)"),
        ("fn", "add.func"),
    ],
)
def test_an_attribute_of_other_tasks_is_answered_with_ours(
    name: str, words: str
) -> None:
    assert not hasattr(tasks.add, name)
    message = f"'TaskDefinition' object has no attribute '{name}'; write {words}"
    with pytest.raises(AttributeError, match=f"^{re.escape(message)}$") as caught:
        getattr(tasks.add.using(priority=1), name)
    assert caught.value.name == name


def test_another_attribute_is_plainly_not_there() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'nothing'$"):
        tasks.add.nothing  # type: ignore[attr-defined] # noqa: B018
    bare = object.__new__(definitions.TaskDefinition)
    with pytest.raises(AttributeError, match=r"no attribute 'delay'$"):
        bare.delay  # type: ignore[attr-defined] # noqa: B018
