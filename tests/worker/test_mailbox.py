"""How threads and signal handlers reach the parent's loop."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Iterator

import pytest

from django_jobs.worker.mailbox import Mailbox


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    made = Mailbox()
    yield made
    made.close()


def is_awake(mailbox: Mailbox) -> bool:
    return bool(select.select([mailbox], [], [], 0)[0])


def test_a_call_wakes_the_loop_and_is_made_by_it(mailbox: Mailbox) -> None:
    made: list[str] = []
    assert not is_awake(mailbox)
    thread = threading.Thread(
        target=mailbox.post,
        args=(lambda: made.append(threading.current_thread().name),),
    )
    thread.start()
    thread.join(20)
    assert is_awake(mailbox)
    mailbox.open()
    assert made == [threading.current_thread().name]


def test_calls_are_made_once_and_in_their_order(mailbox: Mailbox) -> None:
    made: list[int] = []
    for number in range(5):
        mailbox.post(lambda number=number: made.append(number))  # type: ignore[misc]
    mailbox.open()
    mailbox.open()
    assert made == [0, 1, 2, 3, 4]
    assert not is_awake(mailbox)


def test_a_call_that_posts_another_leaves_it_for_the_next_time(
    mailbox: Mailbox,
) -> None:
    made: list[str] = []

    def first() -> None:
        made.append("first")
        mailbox.post(lambda: made.append("second"))

    mailbox.post(first)
    mailbox.open()
    assert made == ["first"]
    assert is_awake(mailbox)
    mailbox.open()
    assert made == ["first", "second"]


def test_more_calls_than_a_pipe_takes_are_all_made(mailbox: Mailbox) -> None:
    made: list[int] = []
    for number in range(20_000):
        mailbox.post(lambda number=number: made.append(number))  # type: ignore[misc]
    while is_awake(mailbox):
        mailbox.open()
    assert made == [*range(20_000)]


def test_a_signal_wakes_the_loop(mailbox: Mailbox) -> None:
    os.write(mailbox.wakeup_fd, b"\x0f")  # as the interpreter does
    assert is_awake(mailbox)
    mailbox.open()
    assert not is_awake(mailbox)


def test_a_call_after_the_end_finds_nobody_and_does_no_harm() -> None:
    mailbox = Mailbox()
    mailbox.close()
    mailbox.post(lambda: None)
