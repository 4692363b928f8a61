"""The arguments in one line, short and without secrets."""

from __future__ import annotations

import pytest

from django_jobs.summaries import summarise


def test_arguments_stand_as_they_were_written() -> None:
    assert summarise([42, "x"], {"flag": True}) == "42, 'x', flag=True"


def test_a_line_is_never_longer_than_the_column() -> None:
    for args in (["x" * 10_000], list(range(1000)), [{"a": ["y" * 500] * 50}]):
        assert len(summarise(args, {"k": "z" * 1000})) <= 200


def test_everything_is_masked_on_demand() -> None:
    assert summarise([1, 2], {"a": 3}, True) == "***, ***, a=***"


def test_named_places_are_masked() -> None:
    assert summarise([1, 2], {"a": 3, "b": 4}, {1, "a"}) == "1, ***, a=***, b=4"


@pytest.mark.parametrize("text", ["\x00", "\ud800", "\n", "\U0001f600"])
def test_what_some_database_refuses_is_escaped(text: str) -> None:
    line = summarise([text], {})
    assert text not in line
    assert line.isascii()


def test_other_scripts_stay_readable() -> None:
    assert summarise(["Ωμέγα"], {}) == "'Ωμέγα'"


@pytest.mark.parametrize("key", ["a\0b", "\ud800", "a\nb", "\x1b[31m"])
def test_a_keyword_has_escapes_for_what_a_database_or_a_terminal_refuses(
    key: str,
) -> None:
    text = summarise([], {key: 1})
    assert text == f"{key!r}"[1:-1] + "=1"
    assert text.isprintable()
