"""The tail of what a task logs."""

from __future__ import annotations

import logging
import sys
import threading
import weakref
from collections.abc import Iterator

import pytest

from django_jobs.worker import capture
from django_jobs.worker.capture import MAX_LINES, LogTail, capture_logs, new_tail

logger = logging.getLogger("tests.capture")


@pytest.fixture(autouse=True)
def _captured() -> Iterator[None]:
    root = logging.getLogger()
    before, level = list(root.handlers), logger.level
    capture_logs()
    logger.setLevel(logging.INFO)
    yield
    root.handlers[:] = before
    logger.setLevel(level)
    capture._tail.set(None)


class Unspeakable:
    def __str__(self) -> str:
        raise KeyError("no text")


def text_of(tail: LogTail) -> str:
    text = tail.text()
    assert text is not None
    return text


def test_nothing_logged_is_nothing_to_keep() -> None:
    assert new_tail().text() is None


def test_lines_have_level_logger_and_message() -> None:
    tail = new_tail()
    logger.warning("%s of %s", 1, 2)
    assert text_of(tail).endswith(" WARNING tests.capture: 1 of 2")


def test_only_the_last_lines_are_kept_and_the_others_counted() -> None:
    tail = new_tail()
    for number in range(MAX_LINES + 3):
        logger.info("line %s", number)
    lines = text_of(tail).splitlines()
    assert lines[0] == "[3 earlier lines dropped]"
    assert lines[1].endswith("line 3")
    assert (len(lines), lines[-1][-8:]) == (MAX_LINES + 1, "line 202")


def test_exactly_as_many_lines_as_fit_drop_none() -> None:
    tail = new_tail()
    for number in range(MAX_LINES):
        logger.info("line %s", number)
    assert "dropped" not in text_of(tail)


def test_long_lines_keep_their_start_and_their_end() -> None:
    tail = new_tail(4096)
    logger.info("<%s>", "x" * 10_000_000)
    line = text_of(tail)
    assert len(line) <= 1024 + 40
    assert "tests.capture: <xxx" in line
    assert line.endswith("xxx>")
    assert "bytes left out" in line


def test_of_many_long_lines_the_last_bytes_are_kept() -> None:
    tail = new_tail(4096)
    for number in range(50):
        logger.info("%s %s", "x" * 500, number)
    assert len(text_of(tail)) < 4096 + 40
    assert text_of(tail).endswith(" 49")
    assert text_of(tail).startswith("[43 earlier lines dropped]\n")


@pytest.mark.parametrize("most", [0, 1, capture._ROOM])
def test_where_there_is_no_room_lines_are_only_counted(most: int) -> None:
    tail = new_tail(most)
    for _ in range(3):
        logger.info("line")
    assert tail.text() == "[3 earlier lines dropped]"


def test_nothing_that_was_logged_is_kept_alive() -> None:
    class Large:
        pass

    tail, large = LogTail(), Large()
    alive = weakref.ref(large)
    tail.add(logging.makeLogRecord({"msg": "%s", "args": (large,)}))
    del large
    assert alive() is None
    assert "Large object" in text_of(tail)


def test_a_traceback_is_kept() -> None:
    tail = new_tail()
    try:
        raise ValueError("inside")
    except ValueError:
        logger.exception("it failed")
    assert text_of(tail).endswith("ValueError: inside")


@pytest.mark.filterwarnings("ignore")
def test_a_line_that_cannot_be_formatted_is_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tail = LogTail()
    record = logging.makeLogRecord({"msg": "%s", "args": (Unspeakable(),)})
    tail.add(record)
    assert tail.text() == "[a log line that cannot be formatted: KeyError]"


def test_each_attempt_has_its_own_tail() -> None:
    first = new_tail()
    logger.info("one")
    second = new_tail()
    logger.info("two")
    assert text_of(first).endswith("one")
    assert text_of(second).endswith("two")


def test_threads_do_not_see_each_others_lines() -> None:
    tails: dict[str, LogTail] = {}
    barrier = threading.Barrier(2, timeout=20)

    def attempt(name: str) -> None:
        tails[name] = new_tail()
        barrier.wait()
        logger.info("from %s", name)

    threads = [threading.Thread(target=attempt, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert [text_of(tails[name])[-6:] for name in "ab"] == ["from a", "from b"]
    assert all(len(text_of(tail).splitlines()) == 1 for tail in tails.values())


def test_what_is_logged_outside_of_attempts_is_kept_nowhere() -> None:
    capture._tail.set(None)
    logger.info("between")
    assert new_tail().text() is None


def test_the_last_resort_says_nothing_that_another_handler_has_said(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logging.getLogger().handlers[:] = []  # the fixture puts them back
    capture_logs()
    owner = logging.getLogger("tests.owner")
    handler = logging.StreamHandler(sys.stderr)
    owner.addHandler(handler)
    tail = new_tail()
    try:
        logging.getLogger("tests.owner.child").warning("handled")
    finally:
        owner.removeHandler(handler)
    logger.warning("nobody's")
    assert capsys.readouterr().err == "handled\nnobody's\n"
    assert len(text_of(tail).splitlines()) == 2
