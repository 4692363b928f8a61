"""The private channel between parent and child."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from django_jobs.worker.wire import BrokenChannel, Channel


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    ours, theirs = (Channel(end) for end in socket.socketpair())
    yield ours, theirs
    ours.close()
    theirs.close()


Ends = tuple[Channel, Channel]


def test_a_message_arrives_as_it_was_sent(ends: Ends) -> None:
    ours, theirs = ends
    message = ["done", {"text": 'two\nlines and "quotes"', "number": 1.5, "no": None}]
    ours.send(message)
    assert theirs.receive() == [message]


def test_several_messages_come_with_one_read(ends: Ends) -> None:
    ours, theirs = ends
    for number in range(3):
        ours.send([number])
    assert theirs.receive() == [[0], [1], [2]]


def test_a_message_split_over_reads_is_put_together(ends: Ends) -> None:
    ours, theirs = ends
    ours.socket.sendall(b'["a"]\n["b')
    assert theirs.receive() == [["a"]]
    ours.socket.sendall(b'c"')
    assert theirs.receive() == []
    ours.socket.sendall(b"]\n")
    assert theirs.receive() == [["bc"]]


@pytest.mark.parametrize(
    "line",
    [
        b"not JSON",
        b"[1",
        b"{}",
        b"1",
        b'"text"',
        b"null",
        b"[]",
        b"\xff\xfe",
        b"\0\0\0\0",
        b"[" + b"9" * 5000 + b"]",
        b"[" * 50_000,
    ],
    ids=lambda line: repr(line[:12]),
)
def test_what_is_no_message_is_refused(ends: Ends, line: bytes) -> None:
    ours, theirs = ends
    ours.socket.sendall(line + b"\n")
    with pytest.raises(BrokenChannel):
        theirs.receive()


def test_a_message_that_never_ends_is_refused_before_memory_is_full() -> None:
    ours, theirs = socket.socketpair()
    channel = Channel(theirs, longest=1000)
    ours.sendall(b"[1]\n" + b"x" * 900)
    assert channel.receive() == [[1]]
    ours.sendall(b"x" * 101)
    with pytest.raises(BrokenChannel, match="more than 1000 bytes"):
        channel.receive()
    ours.close()
    channel.close()


def test_a_closed_other_side_is_the_end(ends: Ends) -> None:
    ours, theirs = ends
    ours.send(["last"])
    ours.close()
    assert theirs.receive() == [["last"]]
    with pytest.raises(EOFError):
        theirs.receive()


def test_a_connection_that_was_reset_is_the_end(ends: Ends) -> None:
    ours, theirs = ends
    theirs.send(["never read"])
    ours.close()
    with pytest.raises(EOFError):
        theirs.receive()


def test_nothing_to_read_does_not_block_when_told_so(ends: Ends) -> None:
    with pytest.raises(BlockingIOError):
        ends[0].receive(socket.MSG_DONTWAIT)


def test_what_a_full_buffer_does_not_take_is_flushed_later(ends: Ends) -> None:
    ours, theirs = ends
    messages = [[number, "x" * 10_000] for number in range(500)]
    for message in messages:
        ours.post(message)
    assert ours.flush() is False
    received = []
    while len(received) < len(messages):
        received += theirs.receive()
        is_out = ours.flush()
    assert received == messages
    assert is_out


def test_posting_to_a_dead_child_drops_the_message(ends: Ends) -> None:
    ours, theirs = ends
    theirs.close()
    ours.post(["run"])
    assert ours.flush() is True
    assert not ours._outgoing
