"""What is said of a database that is away."""

from __future__ import annotations

import pytest
from django.db import (
    DataError,
    InterfaceError,
    OperationalError,
    ProgrammingError,
    connection,
)

from django_jobs.worker import outage as module
from django_jobs.worker.outage import REPEAT, Outage, in_a_line, is_trouble
from tests.worker.parts import Clock

AWAY = OperationalError('connection failed: no such host\n\tIs "it" running?')
LINE = (
    "event=database_unreachable alias=default "
    r'error="connection failed: no such host Is \"it\" running?" retry_in=2.0'
)
BACK = "event=database_reachable alias=default"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def test_an_outage_is_said_again_now_and_then(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    outage = Outage("default")
    for _ in range(61):
        outage.failed("me", AWAY, 2)
        clock.now += REPEAT / 20
    assert caplog.messages == [LINE] * 4


def test_its_end_is_said_once(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    outage = Outage("default")
    outage.succeeded("me")
    outage.failed("me", AWAY, 2)
    outage.succeeded("me")
    outage.succeeded("me")
    assert caplog.messages == [LINE, BACK]


def test_the_next_outage_is_said_at_once(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    outage = Outage("default")
    for _ in range(2):
        outage.failed("me", AWAY, 2)
        outage.succeeded("me")
    assert caplog.messages == [LINE, BACK] * 2


def test_it_is_on_while_somebody_who_failed_still_tries(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    outage = Outage("default")
    for who in ("one", "two", "three"):
        outage.failed(who, AWAY, 2)
    outage.succeeded("one")
    outage.succeeded("somebody else")
    outage.gave_up("two")
    assert (caplog.messages, outage.is_on) == ([LINE], True)
    outage.succeeded("three")
    assert (caplog.messages, outage.is_on) == ([LINE, BACK], False)


def test_who_gives_up_has_not_seen_the_database_again(clock: Clock) -> None:
    outage = Outage("default")
    outage.failed("me", AWAY, 2)
    outage.gave_up("me")
    assert outage.is_on
    outage.succeeded("somebody else")
    assert not outage.is_on


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OperationalError("connection refused"), True),
        (OperationalError(1049, "Unknown database"), True),
        (InterfaceError("connection already closed"), True),
        (ConnectionResetError(), True),
        (TimeoutError(), True),
        (ProgrammingError("syntax error"), False),
        (DataError("out of range"), False),
        (ValueError("of ours"), False),
    ],
)
def test_trouble_is_told_from_a_fault(error: Exception, expected: bool) -> None:
    assert is_trouble(error) is expected


@pytest.mark.django_db
def test_a_missing_table_is_no_trouble_on_any_database() -> None:
    with pytest.raises(Exception, match="never_made") as caught:
        connection.cursor().execute("SELECT 1 FROM never_made")
    assert not is_trouble(caught.value)


def test_a_long_or_empty_error_is_one_short_line() -> None:
    assert len(in_a_line(OperationalError("x\n" * 1000))) == 300
    assert in_a_line(ConnectionResetError()) == "ConnectionResetError"
