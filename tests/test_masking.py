"""Sensitive arguments are masked wherever a person looks at a task."""

from __future__ import annotations

import json

import pytest

from django_jobs.definitions import find_definition
from django_jobs.masking import MASKED, masked_arguments, masked_value
from tests.sampleapp import tasks

SOME = tasks.send.name
ALL = tasks.keep_quiet.name


def test_the_sample_tasks_are_registered() -> None:
    assert find_definition(SOME) and find_definition(ALL)


@pytest.mark.parametrize(
    ("args", "kwargs", "shown"),
    [
        (["a@b.c", "secret"], {}, (["a@b.c", "***"], {})),
        (["a@b.c"], {"password": "secret"}, (["a@b.c"], {"password": "***"})),
        ([], {"address": "a@b.c"}, ([], {"address": "a@b.c"})),
    ],
)
def test_the_named_parameters_are_masked_however_they_came(
    args: list[str], kwargs: dict[str, str], shown: tuple[list[str], dict[str, str]]
) -> None:
    masked = masked_arguments(SOME, json.dumps(args), json.dumps(kwargs))
    assert tuple(map(json.loads, masked)) == shown


def test_a_task_that_is_sensitive_as_a_whole_shows_nothing() -> None:
    assert masked_arguments(ALL, '["a"]', '{"b": "c"}') == (MASKED, MASKED)
    assert masked_value(ALL, '"secret"') == MASKED


def test_no_value_is_not_masked() -> None:
    assert masked_value(ALL, None) is None


@pytest.mark.parametrize("args", ["not JSON", "7", "[" * 100_000])
def test_arguments_that_cannot_be_read_are_masked_as_a_whole(args: str) -> None:
    assert masked_arguments(SOME, args, "{}") == (MASKED, MASKED)


def test_a_task_that_is_not_known_here_is_shown() -> None:
    assert masked_arguments("gone.task", "[1]", "{}") == ("[1]", "{}")
    assert masked_value("gone.task", "2") == "2"
