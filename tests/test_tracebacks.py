"""Whatever an exception does, its record can be stored."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import pytest

from django_jobs.records import ErrorRecord
from django_jobs.tracebacks import class_path, record_error


class Rude(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no message for you")


class Lost(Exception):
    def __str__(self) -> str:
        return None  # type: ignore[return-value]


class Poison(Exception):
    @property
    def __notes__(self) -> Any:
        raise RuntimeError("no notes for you")


def record(error: BaseException, max_bytes: int = 10_000) -> ErrorRecord:
    try:
        raise error
    except BaseException as raised:
        return record_error(raised, max_bytes)


def test_class_message_and_traceback_are_kept() -> None:
    error = record(ValueError("so sad"))
    assert error.exception_class == "builtins.ValueError"
    assert error.message == "so sad"
    assert error.traceback.startswith("Traceback (most recent call last):")
    assert error.traceback.endswith("ValueError: so sad\n")
    assert "raise error" in error.traceback


def test_a_class_of_ones_own_has_its_dotted_path() -> None:
    assert record(Rude()).exception_class == f"{__name__}.Rude"


@pytest.mark.parametrize("error", [Rude(), Lost(), Poison()])
def test_an_exception_that_cannot_be_asked_is_recorded(error: Exception) -> None:
    assert record(error).exception_class == class_path(type(error))
    assert record(error).traceback


@pytest.mark.parametrize("text", ["NUL \x00", "\ud800", "\udfff\ud800"])
def test_no_database_refuses_the_text(text: str) -> None:
    for part in record(ValueError(text)):
        assert "\x00" not in part
        part.encode()


def test_long_texts_are_cut() -> None:
    error = record(ValueError("Ω" * 1_000_000), 1000)
    assert len(error.message.encode()) <= 1000
    assert len(error.traceback.encode()) <= 1000


def test_a_class_path_fits_its_column() -> None:
    long = type("E" * 500, (Exception,), {})
    assert len(record(long()).exception_class) <= 200


def test_causes_in_a_circle_come_to_an_end() -> None:
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    assert "second" in record(first).traceback


def test_groups_are_written_out() -> None:
    group = ExceptionGroup("several", [ValueError("one"), KeyError("two")])
    assert "ValueError: one" in record(group).traceback


def test_an_exception_that_was_never_raised_is_recorded() -> None:
    error = record_error(ValueError("calm"))
    assert error.traceback == "ValueError: calm\n"
    assert len(error.fingerprint) == 16


def fail_at_one_place(message: str) -> ErrorRecord:
    try:
        json.loads(message)
    except ValueError as raised:
        return record_error(raised)
    raise AssertionError


def fail_at_another(message: str) -> ErrorRecord:
    try:
        json.loads(message)
    except ValueError as raised:
        return record_error(raised)
    raise AssertionError


def test_a_fingerprint_tells_the_class_and_the_place_in_own_code() -> None:
    one, again = fail_at_one_place("{"), fail_at_one_place("[x")
    assert one.message != again.message
    assert one.fingerprint == again.fingerprint
    assert one.fingerprint != fail_at_another("{").fingerprint
    assert one.fingerprint != record(KeyError()).fingerprint
    assert int(one.fingerprint, 16) >= 0


def test_the_traceback_begins_where_the_package_calls_the_task() -> None:
    names: dict[str, Any] = {"__name__": "django_jobs.worker.pretended", "own": record}
    exec("def call(f): f()", names)  # noqa: S102 - a frame of the package
    with pytest.raises(ZeroDivisionError) as caught:
        names["call"](lambda: 1 // 0)
    error = caught.value
    assert error.__traceback__ is not None
    error.__traceback__ = error.__traceback__.tb_next  # leave this test out
    text = record_error(error).traceback
    assert "in call" not in text
    assert "in <lambda>" in text


def _raise_deep(depth: int) -> None:
    if depth == 0:
        raise ValueError("at the bottom")
    _raise_deep(depth - 1)


def _chained(count: int) -> BaseException:
    error = ValueError("the first")
    for number in range(count):
        following = ValueError(f"number {number}")
        following.__cause__ = error
        error = following
    return error


def _deep() -> BaseException:
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(20_000)
    try:
        _raise_deep(8_000)
    except ValueError as error:
        return error
    finally:
        sys.setrecursionlimit(limit)
    raise AssertionError("it did not raise")


BOUNDLESS = {
    "causes": lambda: _chained(100_000),
    "members": lambda: ExceptionGroup("many", [ValueError()] * 10 + _many(100_000)),
    "frames": _deep,
    "lines": lambda: ValueError("\n" * 10_000_000),
}


def _many(count: int) -> list[Exception]:
    return [ValueError(number) for number in range(count)]


@pytest.mark.parametrize("kind", BOUNDLESS)
def test_an_error_without_end_is_told_in_short(kind: str) -> None:
    error = BOUNDLESS[kind]()
    begin = time.process_time()
    record = record_error(error)
    assert time.process_time() - begin < 2
    assert record.traceback.startswith("(the last 100 frames at most")
    assert f"builtins.{type(error).__name__}: " in record.traceback
    assert len(record.traceback) <= 64 * 1024


def test_the_last_frames_are_those_that_are_kept() -> None:
    record = record_error(_deep())
    assert record.traceback.count(", in _raise_deep") <= 100
    assert 'raise ValueError("at the bottom")' in record.traceback


def test_a_recursion_error_is_told_in_full() -> None:
    def recurse() -> None:
        recurse()

    with pytest.raises(RecursionError) as caught:
        recurse()
    text = record_error(caught.value).traceback
    assert text.startswith("Traceback (most recent call last):")
    assert "more times]" in text
