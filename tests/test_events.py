"""Events in the log: their text and their fields."""

from __future__ import annotations

import io
import json
import logging
import sys

import pytest

from django_jobs import events

Log = pytest.LogCaptureFixture
logger = logging.getLogger("django_jobs")


def test_an_event_is_a_text_for_people_and_fields_for_programs(caplog: Log) -> None:
    events.log(
        logger,
        logging.WARNING,
        "task_finished",
        task="a.b",
        task_id="7",
        duration_ms=1.26,
        error_message="no 'x'",
        also={"queue": "mail"},
    )
    (record,) = caplog.records
    assert record.getMessage() == (
        "event=task_finished task=a.b id=7 duration_ms=1.3 message=\"no 'x'\""
    )
    fields = vars(record)
    assert (fields["event"], fields["task"]) == ("task_finished", "a.b")
    assert (fields["task_id"], fields["duration_ms"]) == ("7", 1.26)
    assert (fields["error_message"], fields["queue"]) == ("no 'x'", "mail")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("plain-value/1.5,é", "plain-value/1.5,é"),
        ("", '""'),
        ("time limit", '"time limit"'),
        ("a=b", '"a=b"'),
        ('"', r'"\""'),
        ("it's", '"it\'s"'),
        (r"C:\new", r'"C:\\new"'),
        ("one\ntwo\r\t", r'"one\ntwo\r\t"'),
        ("\x1b[2J\x7f\x9b\x00", r'"\u001b[2J\u007f\u009b\u0000"'),
        ("\u2028\u202e\ud800", r'"\u2028\u202e\ud800"'),
        (["a (2)", "b"], '"a (2),b"'),
        (None, "None"),
        (True, "True"),
        (7, "7"),
    ],
)
def test_a_value_ends_where_it_is_seen_to_end(
    value: object, text: str, caplog: Log
) -> None:
    events.log(logger, logging.WARNING, "x", value=value, last=1)
    assert caplog.messages == [f"event=x value={text} last=1"]
    assert vars(caplog.records[0])["value"] == value


def test_a_quoted_value_is_a_string_of_json(caplog: Log) -> None:
    odd = "".join(map(chr, range(256))) + " \U000e0001"
    events.log(logger, logging.WARNING, "x", value=odd)
    assert json.loads(caplog.messages[0].removeprefix("event=x value=")) == odd


def test_a_traceback_moves_no_cursor(caplog: Log) -> None:
    events.log(logger, logging.ERROR, "x", traceback="Trace\n\ta\x1b[2J\rb")
    assert caplog.messages == ["event=x\nTrace\n\ta\\u001b[2J\\rb"]


def test_messages_of_a_kind_have_the_same_unformatted_text(caplog: Log) -> None:
    for count in (1, 2):
        events.log(logger, logging.WARNING, "rescued", tasks=count)
    assert {record.msg for record in caplog.records} == {"event=rescued tasks=%s"}


def test_ids_stand_in_a_row_and_a_traceback_below(caplog: Log) -> None:
    events.log(
        logger, logging.ERROR, "x", task_ids=["1", "2"], traceback="Trace\n 100%"
    )
    (record,) = caplog.records
    assert record.getMessage() == "event=x tasks=1,2\nTrace\n 100%"
    assert vars(record)["task_ids"] == ["1", "2"]


def test_the_place_in_the_code_is_that_of_the_caller(caplog: Log) -> None:
    events.log(logger, logging.ERROR, "x")
    assert caplog.records[0].filename == "test_events.py"


def test_a_handler_that_raises_ends_nobody_and_hides_no_line(
    capfd: pytest.CaptureFixture[str],
) -> None:
    class Broken(logging.Handler):
        def handle(self, record: logging.LogRecord) -> bool:
            raise RuntimeError("the service is away")

    handler = Broken()
    logger.addHandler(handler)
    try:
        events.log(logger, logging.ERROR, "x", value="100 %")
    finally:
        logger.removeHandler(handler)
    told = capfd.readouterr().err
    assert told.startswith('event=x value="100 %"\nTraceback')
    assert told.endswith("RuntimeError: the service is away\n")


@pytest.mark.parametrize("stream", [None, io.StringIO()])
def test_where_nothing_can_be_said_nothing_is(
    monkeypatch: pytest.MonkeyPatch, stream: io.StringIO | None
) -> None:
    if stream is not None:
        stream.close()
    monkeypatch.setattr(sys, "__stderr__", stream)
    monkeypatch.setattr(logger, "handlers", None)
    events.log(logger, logging.ERROR, "x")


def test_what_is_below_the_level_costs_nothing(caplog: Log) -> None:
    logger.setLevel(logging.ERROR)
    try:
        events.log(logger, logging.WARNING, "x", name="would be refused")
    finally:
        logger.setLevel(logging.NOTSET)
    assert not caplog.records
