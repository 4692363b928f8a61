"""The signals that the enqueuing process sends; the worker's are tested with it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.db import transaction

from django_jobs import TaskDefinition, enqueue_many
from django_jobs.signals import task_enqueued
from tests.sampleapp import tasks

Told = list[tuple[object, Any]]


@pytest.fixture
def listen() -> Iterator[Callable[..., Told]]:
    """Connect a receiver that notes sender and result."""
    receivers: list[Any] = []

    def connect(sender: TaskDefinition[..., Any] | None = None) -> Told:
        told: Told = []

        def receive(sender: object, task_result: object, **kwargs: Any) -> None:
            told.append((sender, task_result))

        receivers.append((receive, sender))
        task_enqueued.connect(receive, sender=sender)
        return told

    yield connect
    for receive, sender in receivers:
        task_enqueued.disconnect(receive, sender=sender)


@pytest.mark.django_db(transaction=True)
def test_the_sender_is_the_declared_definition(listen: Callable[..., Told]) -> None:
    told = listen()
    result = tasks.add.using(priority=7).enqueue(1)
    assert told == [(tasks.add, result)]


@pytest.mark.django_db(transaction=True)
def test_a_receiver_can_listen_to_one_task(listen: Callable[..., Told]) -> None:
    told = listen(tasks.double)
    results = enqueue_many([tasks.add.s(1), tasks.double.using(priority=1).s(2)])
    assert told == [(tasks.double, results[1])]


@pytest.mark.django_db(transaction=True)
def test_receivers_are_told_after_the_commit(listen: Callable[..., Told]) -> None:
    told = listen()
    with transaction.atomic():
        tasks.add.enqueue(1)
        assert told == []
    assert len(told) == 1


@pytest.mark.django_db(transaction=True)
def test_receivers_are_told_from_async_code_too(listen: Callable[..., Told]) -> None:
    told = listen()
    result = async_to_sync(tasks.add.aenqueue)(1)
    assert told == [(tasks.add, result)]


@pytest.mark.django_db(transaction=True)
def test_a_receiver_that_raises_hinders_nobody(
    listen: Callable[..., Told], caplog: pytest.LogCaptureFixture
) -> None:
    def fail(**kwargs: Any) -> None:
        raise RuntimeError("receiver is broken")

    task_enqueued.connect(fail)
    told = listen()
    try:
        with caplog.at_level(logging.ERROR, "django.dispatch"):
            tasks.add.enqueue(1)
    finally:
        task_enqueued.disconnect(fail)
    assert len(told) == 1
    assert "receiver is broken" in caplog.text
