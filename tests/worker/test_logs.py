"""The worker's own log."""

from __future__ import annotations

import io
import json
import logging
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from django_jobs import events
from django_jobs.worker.logs import (
    TASKS,
    JsonFormatter,
    configure,
    everything_in,
    finish_lines,
)

NAMES = ("", "django_jobs", TASKS)
Out = pytest.CaptureFixture[str]


@pytest.fixture
def out(capsys: Out) -> Iterator[Out]:
    """Standard error, with the loggers as an unconfigured project has them."""
    loggers = [logging.getLogger(name) for name in NAMES]
    before = [(each.level, each.handlers, each.propagate) for each in loggers]
    for each in loggers:
        each.level, each.handlers, each.propagate = logging.NOTSET, [], True
        each.manager._clear_cache()  # type: ignore[attr-defined]
    yield capsys
    for each, (level, handlers, propagate) in zip(loggers, before, strict=True):
        each.level, each.handlers, each.propagate = level, handlers, propagate
        each.manager._clear_cache()  # type: ignore[attr-defined]


def entries(out: Out) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.readouterr().err.splitlines()]


def test_text_has_time_level_and_message(out: Out) -> None:
    configure("text")
    logging.getLogger("django_jobs").info("event=%s", "started")
    (line,) = out.readouterr().err.splitlines()
    assert line.endswith("INFO    event=started")
    datetime.strptime(line[:23], "%Y-%m-%d %H:%M:%S,%f")


def test_json_is_one_object_per_line(out: Out) -> None:
    configure("json")
    logging.getLogger("django_jobs").warning("two\nlines of %s", "text")
    (entry,) = entries(out)
    assert (entry["level"], entry["logger"]) == ("WARNING", "django_jobs")
    assert entry["message"] == "two\nlines of text"
    assert datetime.fromisoformat(entry["time"]).tzinfo == UTC


def test_a_traceback_is_part_of_the_object(out: Out) -> None:
    configure("json")
    try:
        raise ValueError("inside")
    except ValueError:
        logging.getLogger("django_jobs").exception("event=failed")
    (entry,) = entries(out)
    assert entry["traceback"].splitlines()[-1] == "ValueError: inside"


def test_extra_fields_are_added_whatever_they_are(out: Out) -> None:
    configure("json")
    extra = {"task": "a", "seconds": 1.5, "odd": {1}}
    logging.getLogger("django_jobs").info("event=x", extra=extra)
    (entry,) = entries(out)
    assert (entry["task"], entry["seconds"], entry["odd"]) == ("a", 1.5, "{1}")
    assert set(entry) == {"time", "level", "logger", "message", *extra}


def test_the_fields_of_an_event_are_keys(out: Out) -> None:
    configure("json")
    events.log(logging.getLogger(TASKS), 30, "x", task_id="7", duration_ms=1.5)
    (entry,) = entries(out)
    assert (entry["event"], entry["task_id"]) == ("x", "7")
    assert entry["duration_ms"] == 1.5
    assert entry["message"] == "event=x id=7 duration_ms=1.5"


def test_a_field_cannot_take_the_place_of_ours(out: Out) -> None:
    configure("json")
    extra = {"level": 9, "time": "never", "logger": "x"}
    logging.getLogger("django_jobs").info("x", extra=extra)
    (entry,) = entries(out)
    assert (entry["level"], entry["logger"]) == ("INFO", "django_jobs")
    assert entry["time"] != "never"


class _Unspeakable:
    def __repr__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    "value", [float("nan"), {(1, 2): 3}, _Unspeakable(), "\ud800", object]
)
def test_a_line_comes_out_whatever_a_field_is(out: Out, value: Any) -> None:
    configure("json")
    logging.getLogger("django_jobs").info("fine", extra={"odd": value, "n": 1})
    (entry,) = entries(out)
    assert (entry["message"], entry["n"]) == ("fine", 1)
    assert "odd" in entry


def test_a_message_that_cannot_be_formatted_is_shown_as_it_is(out: Out) -> None:
    configure("json")
    logging.getLogger("django_jobs").info("bad %d", "words")
    (entry,) = entries(out)
    assert entry["message"] == "'bad %d' % ('words',)"


def test_other_loggers_of_the_terminal_write_json_too(out: Out, tmp_path: Path) -> None:
    shop = logging.getLogger("shop")
    to_terminal = logging.StreamHandler(sys.stderr)
    to_file = logging.FileHandler(tmp_path / "log")
    shop.handlers = [to_terminal, to_file]
    shop.propagate = False
    try:
        configure("json")
        shop.error("sold out")
    finally:
        shop.handlers, shop.propagate = [], True
    (entry,) = entries(out)
    assert (entry["logger"], entry["message"]) == ("shop", "sold out")
    assert (tmp_path / "log").read_text() == "sold out\n"
    to_file.close()


def test_json_says_once_what_a_logger_with_a_handler_passes_on(
    out: Out, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # those of pytest
    owner = logging.getLogger("tests.owner")
    handler = logging.StreamHandler(sys.stderr)
    owner.addHandler(handler)
    try:
        configure("json")
        logging.getLogger("tests.owner.child").error("failed")
    finally:
        owner.removeHandler(handler)
    logging.getLogger("tests.nobody").error("alone")
    assert [entry["message"] for entry in entries(out)] == ["failed", "alone"]


def test_handlers_of_the_project_that_go_elsewhere_stay_with_json(out: Out) -> None:
    elsewhere = logging.NullHandler()
    logging.getLogger("django_jobs").addHandler(elsewhere)
    configure("json")
    assert elsewhere in logging.getLogger("django_jobs").handlers


def test_prints_warnings_and_uncaught_errors_are_json_inside(out: Out) -> None:
    configure("json")
    with everything_in("json"):
        print("printed")  # noqa: T201
        sys.stderr.write("written\n")
        thread = threading.Thread(target=lambda: 1 / 0)
        thread.start()
        thread.join()
    print("plain again")  # noqa: T201
    printed, err = out.readouterr()
    first, *others = printed.splitlines()
    assert json.loads(first)["message"] == "printed"
    assert others == ["plain again"]
    written, uncaught = map(json.loads, err.splitlines())
    assert (written["logger"], written["message"]) == ("stderr", "written")
    assert uncaught["event"] == "uncaught"
    assert uncaught["traceback"].endswith("ZeroDivisionError: division by zero")


def test_what_has_no_end_of_a_line_is_written_too(out: Out) -> None:
    with everything_in("json"):
        print("first", end="")  # noqa: T201
        finish_lines()
        assert json.loads(out.readouterr().out)["message"] == "first"
        thread = threading.Thread(target=lambda: sys.stderr.write("second"))
        thread.start()
        thread.join()
    assert [entry["message"] for entry in entries(out)] == ["second"]


def test_lines_are_finished_although_a_stream_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stdout", closed)
    with everything_in("json"):
        print("lost", end="")  # noqa: T201
        finish_lines()
        print("lost", end="")  # noqa: T201
    finish_lines()


def test_text_without_the_end_of_a_line_is_flushed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    beneath = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(beneath))
    print("held", end="")  # noqa: T201
    finish_lines()
    assert beneath.getvalue() == b"held"


def test_text_leaves_the_streams_alone(out: Out) -> None:
    before = sys.stdout
    with everything_in("text"):
        assert sys.stdout is before


def test_nothing_but_what_was_logged_is_in_the_object() -> None:
    record = logging.getLogger("x").makeRecord("x", 20, "f.py", 1, "m", (), None)
    entry = json.loads(JsonFormatter().format(record))
    assert set(entry) == {"time", "level", "logger", "message"}


def test_the_line_per_task_has_a_level_of_its_own(out: Out) -> None:
    configure("json", logging.WARNING)
    logging.getLogger(TASKS).info("event=task_finished")
    logging.getLogger(TASKS).warning("event=task_failed")
    assert [entry["message"] for entry in entries(out)] == ["event=task_failed"]


def test_a_project_that_configured_the_log_keeps_its_handlers(
    out: Out,
) -> None:
    handler = logging.NullHandler()
    logging.getLogger("django_jobs").addHandler(handler)
    configure("text")
    assert logging.getLogger("django_jobs").handlers == [handler]


def test_json_when_asked_for_wins_over_the_projects_handlers(out: Out) -> None:
    logging.getLogger("django_jobs").addHandler(logging.NullHandler())
    configure("json")
    logging.getLogger("django_jobs").info("x")
    assert len(entries(out)) == 1


def test_levels_that_the_project_set_are_kept(out: Out) -> None:
    logging.getLogger("django_jobs").setLevel(logging.ERROR)
    logging.getLogger(TASKS).setLevel(logging.DEBUG)
    configure("text", logging.INFO)
    levels = [logging.getLogger(name).level for name in NAMES[1:]]
    assert levels == [logging.ERROR, logging.DEBUG]


LOGGED = """
import logging.config, re, sys
from django_jobs.worker import logs
page = open("docs/howto/logging.md").read()
exec(re.search("```python\\n(.*?)```", page, re.S)[1])
logging.config.dictConfig(LOGGING)
logs.configure("text")
for name in ("django_jobs", "django_jobs.task", "shop"):
    logging.getLogger(name).info("said by %s", name)
"""


def test_the_logging_of_the_guide_says_everything_once() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOGGED],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert re.findall("said by (.*)", done.stderr) == [
        "django_jobs",
        "django_jobs.task",
        "shop",
    ]


def test_lines_are_finished_where_there_is_no_standard_output(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(sys, "stdout")
    assert finish_lines()
