"""The calls of a driver are all caught, and what is raised there comes out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from django.db import OperationalError, connection, transaction

from django_jobs.models import Queue
from django_jobs.records import Demand
from django_jobs.store import get_store
from tests.statements import Call, watched
from tests.store.samples import WORKER, be_alive, insert

pytestmark = pytest.mark.django_db(transaction=True)


class Interrupted(Exception):
    pass


class Notes:
    """Notes the calls; raises at one of them, before or after it was made."""

    def __init__(self, verb: str = "", when: str = "") -> None:
        self.calls: list[Call] = []
        self._fault = verb, when

    @contextmanager
    def __call__(self, call: Call) -> Iterator[None]:
        self.calls.append(call)
        if self._fault == (call.verb, "before"):
            raise connection.Database.OperationalError
        yield
        if self._fault == (call.verb, "after"):
            raise connection.Database.OperationalError

    def verbs(self) -> set[str]:
        return {call.verb for call in self.calls}


def create_queue() -> None:
    with transaction.atomic():
        Queue.objects.create(name="new")


def test_statements_and_commits_are_seen() -> None:
    notes = Notes()
    with watched(notes):
        create_queue()
    assert notes.verbs() == {"connect", "execute", "commit"}
    assert any("INSERT" in call.text for call in notes.calls)


def test_a_rollback_is_seen() -> None:
    notes = Notes()
    with watched(notes), pytest.raises(Interrupted), transaction.atomic():
        Queue.objects.create(name="new")
        raise Interrupted
    assert "rollback" in notes.verbs()


def test_the_cycle_of_a_worker_is_seen() -> None:
    ids = insert(get_store())
    be_alive(get_store())
    notes = Notes()
    with watched(notes):
        cycle = get_store().cycle(WORKER, [], Demand(5))
    assert [claimed.id for claimed in cycle.claimed] == ids
    assert any("UPDATE" in call.text for call in notes.calls)
    assert notes.verbs() & {"commit", "sync"}


def test_nothing_is_seen_afterwards() -> None:
    notes = Notes()
    with watched(notes):
        pass
    create_queue()
    assert notes.calls == []


@pytest.mark.parametrize(("when", "count"), [("before", 0), ("after", 1)])
def test_a_commit_can_be_kept_from_happening_and_its_answer_be_lost(
    when: str, count: int
) -> None:
    with watched(Notes("commit", when)), pytest.raises(OperationalError):
        create_queue()
    connection.close()
    assert Queue.objects.filter(name="new").count() == count


def test_an_error_of_the_database_passes_through() -> None:
    Queue.objects.create(name="new")
    notes = Notes()
    with watched(notes), pytest.raises(Exception, match=r"(?i)unique|duplicate"):
        create_queue()
    assert "rollback" in notes.verbs()
