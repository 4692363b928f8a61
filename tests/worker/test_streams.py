"""Standard streams whose lines become records."""

from __future__ import annotations

import io
import logging
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from django_jobs.worker import streams
from django_jobs.worker.logs import JsonFormatter
from django_jobs.worker.streams import LineLogger


def stream() -> tuple[io.StringIO, LineLogger]:
    out = io.StringIO()
    plain = logging.Formatter("%(levelname)s %(name)s <%(message)s>")
    return out, LineLogger(out, "stdout", logging.INFO, plain)


def test_a_print_is_a_record_however_many_lines_it_has() -> None:
    out, logger = stream()
    print("one", file=logger)
    print("two\nlines", file=logger)
    assert out.getvalue() == "INFO stdout <one>\nINFO stdout <two\nlines>\n"


def test_what_is_no_line_yet_waits_for_its_end() -> None:
    out, logger = stream()
    print("a", end="", file=logger)
    assert out.getvalue() == ""
    print("b", file=logger)
    assert out.getvalue() == "INFO stdout <ab>\n"
    print("c", end="", file=logger)
    logger.finish()
    assert out.getvalue().endswith("INFO stdout <c>\n")


def in_thread(call: Callable[[], object]) -> None:
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()


def test_what_a_thread_has_left_behind_is_written_with_the_rest() -> None:
    out, logger = stream()
    in_thread(lambda: logger.write("a"))
    assert out.getvalue() == ""
    logger.finish()
    assert out.getvalue() == "INFO stdout <a>\n"
    logger.finish()
    logger.finish_all()
    assert out.getvalue().count("\n") == 1


def test_a_thread_that_finishes_by_itself_is_left_alone_until_the_end() -> None:
    out, logger = stream()
    logger.finish()
    logger.write("mine")
    in_thread(logger.finish)
    assert out.getvalue() == ""
    in_thread(logger.finish_all)
    assert out.getvalue() == "INFO stdout <mine>\n"


def test_a_thread_does_not_go_on_with_what_another_wrote() -> None:
    out, logger = stream()
    for text in ("a", "b\n"):  # likely with the same number
        in_thread(lambda text=text: logger.write(text))  # type: ignore[misc]
    assert out.getvalue() == "INFO stdout <b>\n"


def test_empty_lines_are_no_records() -> None:
    out, logger = stream()
    print(file=logger)
    logger.finish()
    assert out.getvalue() == ""


def test_what_never_ends_is_written_in_parts() -> None:
    out, logger = stream()
    logger.write("a" * 10)
    assert logger.write("x" * (2 * streams.MOST_HELD)) == 2 * streams.MOST_HELD
    logger.write("z\n")
    parts = out.getvalue().splitlines()
    assert len(parts) == 3
    assert all(len(each) < streams.MOST_HELD + 20 for each in parts)
    text = "".join(each.removeprefix("INFO stdout <")[:-1] for each in parts)
    assert text == "a" * 10 + "x" * (2 * streams.MOST_HELD) + "z"


def test_many_lines_at_once_are_parted_between_two_of_them() -> None:
    out, logger = stream()
    lines = [f"line {number}" for number in range(50_000)]
    logger.write("\n".join(lines))
    logger.finish()
    parts = out.getvalue().removesuffix(">\n").split(">\nINFO stdout <")
    assert len(parts) > 5
    assert all(len(each) <= streams.MOST_HELD + 20 for each in parts)
    assert "\n".join(parts) == "INFO stdout <" + "\n".join(lines)


def test_a_huge_text_is_not_formatted_at_once() -> None:
    with Path("/dev/null").open("w") as out:
        logger = LineLogger(out, "stdout", logging.INFO, JsonFormatter())
        text = "x\0" * 5_000_000
        tracemalloc.start()
        logger.write(text)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert most < 5_000_000


def test_threads_do_not_mix_their_lines() -> None:
    out, logger = stream()
    logger.write("mine ")
    thread = threading.Thread(target=lambda: logger.write("other\n"))
    thread.start()
    thread.join()
    logger.write("too\n")
    assert out.getvalue() == "INFO stdout <other>\nINFO stdout <mine too>\n"


def test_it_is_asked_like_the_stream_that_it_replaces(tmp_path: Path) -> None:
    with (tmp_path / "out").open("w", encoding="utf-8") as file:
        logger = LineLogger(file, "stdout", 20, JsonFormatter())
        assert logger.fileno() == file.fileno()
        assert logger.encoding == "utf-8"
        assert logger.buffer is file.buffer
        assert logger.writable()
        assert (logger.errors, logger.newlines) == ("strict", None)
        assert (logger.name, logger.mode) == (file.name, "w")
        assert not logger.line_buffering
        logger.reconfigure(line_buffering=True)
        assert file.line_buffering
        assert not hasattr(logger, "nothing_of_this_name")


def test_it_is_no_terminal_whatever_is_beneath(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out, logger = stream()
    monkeypatch.setattr(out, "isatty", lambda: True)
    assert not logger.isatty()


def test_one_that_is_not_ready_yet_has_no_attributes() -> None:
    assert not hasattr(LineLogger.__new__(LineLogger), "reconfigure")
