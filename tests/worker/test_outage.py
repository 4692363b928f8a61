"""What is said of a database that is away."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import pytest
from django.db import (
    DatabaseError,
    DataError,
    InterfaceError,
    OperationalError,
    ProgrammingError,
    connection,
)

from django_jobs.store.errors import is_not_migrated
from django_jobs.worker import outage as module
from django_jobs.worker.outage import (
    LONGEST_PAUSE,
    REPEAT,
    Outage,
    in_a_line,
    is_trouble,
    missing_tables,
)
from tests.worker.parts import PATIENCE, Clock, wait_for

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


# -- connections that were merely cut --------------------------------------------------

LOST = LINE.replace("database_unreachable", "connection_lost")


@pytest.fixture
def forgiving(clock: Clock, caplog: pytest.LogCaptureFixture) -> Outage:
    caplog.set_level(logging.INFO, "django_jobs")
    return Outage("default", first="connection_lost")


def told(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [(each.levelname, each.getMessage()) for each in caplog.records]


def test_connections_that_were_merely_cut_alarm_nobody(
    forgiving: Outage, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        for who in ("one", "two", "three"):
            forgiving.failed(who, AWAY, 2)
        assert forgiving.is_on
        for who in ("one", "two", "three"):
            forgiving.succeeded(who)
        assert not forgiving.is_on
    assert told(caplog) == [("INFO", LOST)] * 6


def test_who_fails_again_has_an_outage(
    forgiving: Outage, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        forgiving.failed("me", AWAY, 2)
        forgiving.failed("me", AWAY, 2)
        forgiving.failed("another", AWAY, 2)
        clock.now += REPEAT + 1
        forgiving.failed("another", AWAY, 2)
        forgiving.succeeded("me")
        forgiving.succeeded("another")
    lines = [("INFO", LOST), ("ERROR", LINE), ("ERROR", LINE), ("WARNING", BACK)]
    assert told(caplog) == lines * 2


def test_who_is_refused_while_others_are_served_has_one_too(
    forgiving: Outage, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        forgiving.failed("me", AWAY, 2)
        forgiving.succeeded("another")
    assert told(caplog) == [("INFO", LOST), ("ERROR", LINE)]


def test_so_has_what_is_only_tried_again_and_again(
    forgiving: Outage, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        forgiving.failed("me", AWAY, 2)
        forgiving.gave_up("me")
    assert told(caplog) == [("INFO", LOST), ("ERROR", LINE)]


# -- trying again ----------------------------------------------------------------------


@pytest.fixture
def waiting(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Outage:
    """Return an outage in which time passes only by waiting, and without jitter."""
    monkeypatch.setattr(module.random, "uniform", lambda low, high: 1.0)
    outage = Outage("default")

    def wait(seconds: float) -> None:
        clock.now += seconds

    monkeypatch.setattr(outage._changed, "wait", wait)
    return outage


def test_the_first_attempts_follow_at_once_and_the_pauses_grow(
    waiting: Outage, clock: Clock
) -> None:
    waits = []
    for failures in range(1, 8):
        begin = clock.now
        waiting.wait(failures)
        waits.append(round(clock.now - begin, 3))
    assert waits == [0.05, 0.1, 0.2, 0.4, 0.5, 0.5, 0.5]


def test_all_who_wait_share_the_attempts_of_one(waiting: Outage, clock: Clock) -> None:
    attempts, begin = 0, clock.now
    while clock.now < begin + 60:
        waiting.wait(failures=attempts // 4 + 1)  # by one of four threads in turn
        attempts += 1
    assert 115 <= attempts <= 125


def test_jitter_spreads_the_pauses_of_many_workers() -> None:
    pauses = {module.pause_after(100) for _ in range(100)}
    assert len(pauses) > 50
    assert 0.75 * LONGEST_PAUSE <= min(pauses) < max(pauses) <= 1.25 * LONGEST_PAUSE


def in_thread(call: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("end", ["success", "close"])
def test_waiting_is_over_when_another_was_served_or_the_worker_stops(
    monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    monkeypatch.setattr(module, "pause_after", lambda failures: 3600.0)
    outage = Outage("default")
    for who in ("one", "two", "three"):
        outage.failed(who, AWAY, 2)
    threads = [in_thread(lambda: outage.wait(9)) for _ in range(2)]
    wait_for(lambda: len(outage._changed._waiters) == 2)  # type: ignore[attr-defined]
    assert outage.is_on
    if end == "success":
        outage.succeeded("three")
    else:
        outage.close()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()


def test_who_is_refused_while_others_are_served_does_not_try_as_often_as_they_do(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    outage = Outage("default")

    def wait(seconds: float) -> None:
        clock.now += min(seconds, 0.001)
        outage.succeeded("somebody else")

    monkeypatch.setattr(outage._changed, "wait", wait)
    attempts, begin = 0, clock.now
    while clock.now < begin + 10:
        attempts += 1
        outage.failed("me", AWAY, 2)
        outage.wait(attempts)
    assert 10 <= attempts <= 45


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
        (OperationalError(1213, "Deadlock found"), False),
        (ValueError("of ours"), False),
    ],
)
def test_trouble_is_told_from_a_fault(error: Exception, expected: bool) -> None:
    assert is_trouble(error) is expected


@pytest.fixture
def missing() -> Exception:
    """Return the error that tells of a table that is not there."""
    with pytest.raises(DatabaseError, match="never_made") as caught:
        connection.cursor().execute("SELECT 1 FROM never_made")
    return caught.value


@pytest.mark.django_db
def test_a_missing_table_is_a_matter_of_migrations_on_any_database(
    clock: Clock, missing: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    assert is_not_migrated(missing)
    assert not is_trouble(missing)
    outage = missing_tables("default")
    outage.failed("me", missing, 2)
    outage.failed("me", missing, 2)
    outage.succeeded("me")
    begin, end = caplog.messages
    assert begin.startswith("event=database_not_migrated alias=default error=")
    assert begin.endswith('hint="run manage.py migrate --database default"')
    assert end == "event=database_migrated alias=default"


def test_a_long_or_empty_error_is_one_short_line() -> None:
    assert len(in_a_line(OperationalError("x\n" * 1000))) == 300
    assert in_a_line(ConnectionResetError()) == "ConnectionResetError"
