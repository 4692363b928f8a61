"""Standard streams that wait for no reader."""

from __future__ import annotations

import fcntl
import logging
import os
import pty
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from django_jobs.worker import terminal
from django_jobs.worker.terminal import PatientStream, patient_streams


@contextmanager
def _ends(kind: str) -> Iterator[tuple[int, int]]:
    """Open something that can be full; yield its end to read and that to write."""
    if kind == "pipe":
        ends = os.pipe()
        fcntl.fcntl(ends[1], fcntl.F_SETPIPE_SZ, 4096)
    elif kind == "socket":
        ends = tuple(each.detach() for each in socket.socketpair())  # type: ignore[assignment]
    else:
        ends = pty.openpty()
    yield ends
    for end in ends:
        os.close(end)


def _refuse(path: str, flags: int) -> int:
    raise PermissionError(path)


@pytest.fixture(params=["pipe", "socket", "terminal", "pipe of another user"])
def full(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[int, Any]]:
    """Yield an end to read and a patient stream on the other one, which is full."""
    monkeypatch.setattr(terminal, "PATIENCE", 0.05)
    kind = request.param
    if kind == "pipe of another user":
        kind = "pipe"
        monkeypatch.setattr(terminal.os, "open", _refuse)
    ends = _ends(kind)
    with ends as (reader, writer), os.fdopen(os.dup(writer), "w") as plain:
        stream: Any = terminal._patient(plain)
        assert isinstance(stream, PatientStream)
        while not stream.dropped:
            stream.write("x" * 4095 + "\n")
        yield reader, stream
        stream.release()


def _drain(reader: int) -> bytes:
    os.set_blocking(reader, False)
    seen = b""
    try:
        while part := os.read(reader, 65536):
            seen += part
    except BlockingIOError:
        pass
    return seen


def test_who_does_not_read_is_waited_for_once(full: tuple[int, Any]) -> None:
    _, stream = full
    begin = time.monotonic()
    for _ in range(100):
        assert stream.write("dropped\n") == 8
    assert time.monotonic() - begin < 0.05
    assert stream.dropped == 101


def test_who_reads_again_is_told(
    full: tuple[int, Any], caplog: pytest.LogCaptureFixture
) -> None:
    reader, stream = full
    stream.write("dropped\n")
    _drain(reader)
    with caplog.at_level(logging.WARNING, "django_jobs"):
        stream.write("seen\n")
    assert _drain(reader).endswith((b"seen\n", b"seen\r\n"))
    assert "event=output_dropped texts=2" in caplog.text
    assert stream.dropped == 0


def test_a_file_never_waits_and_stays_as_it_is(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as file:
        assert terminal._patient(file) is file


@pytest.mark.parametrize("stream", [None, object()])
def test_what_is_no_stream_stays_as_it_is(
    monkeypatch: pytest.MonkeyPatch, stream: object
) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    with patient_streams():
        assert sys.stderr is stream


def test_the_log_of_the_process_goes_there_as_well(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with _ends("pipe") as (reader, writer), os.fdopen(os.dup(writer), "w") as plain:
        monkeypatch.setattr(sys, "stderr", plain)
        handler = logging.StreamHandler(plain)
        logging.getLogger("some.project").addHandler(handler)
        with patient_streams():
            assert isinstance(handler.stream, PatientStream)
            assert sys.stderr is handler.stream
            assert (sys.stderr.fileno(), sys.stderr.isatty()) == (plain.fileno(), False)
            logging.getLogger("some.project").error("a line")
        assert handler.stream is plain
        assert sys.stderr is plain
        assert b"a line\n" in _drain(reader)
        logging.getLogger("some.project").removeHandler(handler)
