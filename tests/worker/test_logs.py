"""The worker's own log."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from django_jobs.worker.logs import TASKS, JsonFormatter, configure

NAMES = ("django_jobs", TASKS)
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
    levels = [logging.getLogger(name).level for name in NAMES]
    assert levels == [logging.ERROR, logging.DEBUG]
