"""Transactions that tasks leave open, also those that Django knows nothing of."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import connections, transaction

from django_jobs.models import Queue
from django_jobs.records import Outcome
from django_jobs.states import Verdict
from django_jobs.worker import leftovers
from django_jobs.worker.executor import Executor
from django_jobs.worker.timeouts import Interruptions
from tests.sampleapp.hands import Hands
from tests.worker import tasks
from tests.worker.parts import PATIENCE

pytestmark = pytest.mark.django_db(transaction=True)


def in_thread(call: Callable[[], Any]) -> Any:
    """Make a call with connections of its own."""

    def closing() -> Any:
        try:
            return call()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(closing).result(PATIENCE)


def test_what_is_open_is_told() -> None:
    def look() -> list[bool]:
        connection = connections["default"]
        answers = [leftovers.is_open(connection)]
        connection.ensure_connection()
        answers.append(leftovers.is_open(connection))
        with transaction.atomic():
            answers.append(leftovers.is_open(connection))
        answers.append(leftovers.is_open(connection))
        tasks.begin_unnoticed()
        return [*answers, leftovers.is_open(connection)]

    assert in_thread(look) == [False, False, True, False, True]


def test_a_connection_that_was_closed_beneath_django_can_be_looked_at() -> None:
    def look() -> list[bool]:
        connection = connections["default"]
        connection.ensure_connection()
        connection.connection.close()
        try:
            return [leftovers.is_open(connection)]
        finally:
            connection.connection = None  # some drivers do not close it twice

    assert in_thread(look) == [False]


@pytest.mark.parametrize("how", ["return", "raise"])
def test_what_a_limit_left_open_is_rolled_back_with_the_task(how: str) -> None:
    tasks.write_into_what_is_unnoticed.enqueue(how)
    hands = Hands()
    task = hands.claim()
    executor = Executor(hands.id, "default", Interruptions())

    def go() -> tuple[Any, bool]:
        outcome = executor.run(task)
        return outcome, leftovers.is_open(connections["default"])

    outcome, is_open = in_thread(go)
    assert (outcome.verdict, is_open) == (Verdict.RETRY, False)
    words = "left a transaction open on default" if how == "return" else "soft limit"
    assert words in f"{outcome.error.message} {outcome.error.traceback}"
    Queue.objects.create(name="others can write")
    assert Queue.objects.count() == 1


def run(name: str, how: str) -> Outcome:
    """Run a task as a child does, then one that writes; return the outcome."""
    definition = getattr(tasks, name)
    definition.enqueue(how)
    tasks.note.enqueue("written later")
    hands = Hands()
    executor = Executor(hands.id, "default", Interruptions())
    claimed = [hands.claim(), hands.claim()]
    first, second = in_thread(lambda: [executor.run(each) for each in claimed])
    assert second.verdict is Verdict.SUCCESSFUL
    return first


@pytest.mark.parametrize("how", ["BEGIN", "  begin", "by autocommit"])
def test_what_a_task_has_begun_by_itself_and_left_is_its_failure(how: str) -> None:
    outcome = run("leave_begun", how)
    assert "left a transaction open on default" in outcome.error.message
    names = Queue.objects.values_list("name", flat=True)
    assert list(names) == ["written later"]


@pytest.mark.parametrize("how", ["BEGIN", "by autocommit"])
def test_what_a_task_has_begun_and_ended_by_itself_stays(how: str) -> None:
    outcome = run("end_begun", how)
    assert Queue.objects.filter(name="committed").count() == 1
    # mysqlclient does not tell: autocommit that stays off counts as a transaction.
    is_mute = type(connections["default"].connection).__module__.startswith("MySQLdb")
    is_misjudged = is_mute and how == "by autocommit"
    assert outcome.verdict is (Verdict.RETRY if is_misjudged else Verdict.SUCCESSFUL)


def test_where_the_settings_have_no_autocommit_only_blocks_count() -> None:
    def look() -> list[bool]:
        connection = connections["default"]
        connection.settings_dict = {**connection.settings_dict, "AUTOCOMMIT": False}
        Queue.objects.exists()
        answers = [leftovers.is_open(connection)]
        with transaction.atomic():
            answers.append(leftovers.is_open(connection))
        return answers

    assert in_thread(look) == [False, True]


def test_what_a_coroutine_left_open_is_ended() -> None:
    async def scenario() -> tuple[bool, leftovers.Writers, bool]:
        leftovers.coroutine.set("me")
        await sync_to_async(connections.close_all)()
        await sync_to_async(tasks.begin_unnoticed)()
        was_open = leftovers.is_any_open()
        left = await leftovers.end_left(lambda opener: opener == "me")
        is_open = leftovers.is_any_open()
        await sync_to_async(connections.close_all)()
        return was_open, left, is_open

    was_open, left, is_open = asyncio.run(scenario())
    assert (was_open, list(left), is_open) == (True, ["default"], False)
