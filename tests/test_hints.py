"""The hints for users of other task queues name what there is here."""

from __future__ import annotations

import pkgutil
import re

import pytest

import django_jobs
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


def test_no_name_of_ours_is_taken_for_one_of_others() -> None:
    names = hints._INSTEAD_OF_NAME.keys() | hints._WHY_ABSENT.keys()
    assert not OPTIONS & hints._WHY_ABSENT.keys()
    assert not names & vars(django_jobs).keys()
    modules = {each.name for each in pkgutil.iter_modules(django_jobs.__path__)}
    assert not names & modules
    assert not hints._INSTEAD_OF_CALL.keys() & set(dir(definitions.Signature))
    assert not hints._INSTEAD_OF_RESULT.keys() & set(dir(django_jobs.TaskResult))


def test_what_is_to_be_written_instead_of_calls_and_results_exists() -> None:
    for words in hints._OF_A_CALL:
        for name in re.findall(r"\)\.(\w+)", words):
            assert hasattr(tasks.add.s(1), name), words
    for words in hints._OF_A_RESULT:
        for name in re.findall(r"result\.(\w+)", words):
            assert name in dir(django_jobs.TaskResult), words
    for words in hints._OF_THE_PACKAGE:
        for name in re.findall(r"import (\w+)", words):
            assert name in django_jobs.__all__


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("shared_task", "; write from django_jobs import task"),
        ("async_task", "; write @task on the function, and function.enqueue(...)"),
        ("chain", ": there are no workflows yet, enqueue the next task at the end"),
        ("Schedule", ": there are no periodic tasks yet, enqueue it from a cron job"),
    ],
)
def test_a_name_of_other_packages_is_answered_with_ours(name: str, words: str) -> None:
    assert not hasattr(django_jobs, name)
    message = f"module 'django_jobs' has no attribute {name!r}{words}"
    with pytest.raises(ImportError, match=f"^{re.escape(message)}"):
        exec(f"from django_jobs import {name}")  # noqa: S102
    with pytest.raises(AttributeError, match=f"^{re.escape(message)}"):
        getattr(django_jobs, name)


def test_another_name_is_plainly_not_there() -> None:
    with pytest.raises(ImportError, match=r"^cannot import name 'nothing'"):
        from django_jobs import nothing  # type: ignore[attr-defined] # noqa: F401
    with pytest.raises(AttributeError, match=r"has no attribute 'nothing'$"):
        django_jobs.nothing  # type: ignore[attr-defined] # noqa: B018


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
