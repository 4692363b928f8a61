"""Each fault does what its mode says: to the call, its transaction, its connection."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import pytest
from django.db import Error, connection, transaction

from django_jobs.models import Queue
from tests.faults import Faults, IsMeant, Mode, Trouble, every, modes, nth, troubles
from tests.statements import Call, watched

pytestmark = pytest.mark.django_db(transaction=True)

EXECUTED = (Mode.AFTER, Mode.CUT_AFTER)
CUT = (Mode.CUT_BEFORE, Mode.CUT_AFTER)
ALL = [trouble for mode in modes() for trouble in troubles(mode)]
each_trouble = pytest.mark.parametrize("trouble", ALL, ids=str)


@pytest.fixture
def faults() -> Iterator[Faults]:
    """Faults of the calls of this thread."""
    faults = Faults()
    faults.spared.clear()
    with watched(faults):
        yield faults


def inserting(name: str) -> IsMeant:
    """Mean the statement that inserts a queue of that name."""
    names: list[str] = []

    def is_meant(call: Call, count: int) -> bool:
        if is_insert := call.text.startswith("INSERT INTO"):
            names.append(call.text)
        return is_insert and len(names) == int(name)

    return is_meant


def committing(call: Call, count: int) -> bool:
    """Mean a COMMIT."""
    return call.verb == "commit"


def insert(*names: str) -> None:
    for name in names:
        Queue.objects.create(name=name)


def insert_together(*names: str) -> None:
    with transaction.atomic():
        insert(*names)


def is_usable() -> bool:
    """Does the connection that there is still answer?"""
    return connection.connection is not None and connection.is_usable()


def queues() -> set[str]:
    """Return what a new connection finds."""
    connection.close()
    return set(Queue.objects.values_list("name", flat=True))


@each_trouble
def test_a_statement_fails_and_is_executed_or_not(
    faults: Faults, trouble: Trouble
) -> None:
    insert("0")
    faults.arm([trouble], inserting("1"))
    with pytest.raises((Error, MemoryError)) as caught:
        insert("1")
    faults.disarm()
    # Of a connection that is cut the driver tells in its own words.
    assert trouble.mode in CUT or trouble.words in str(caught.value)
    assert queues() == ({"0", "1"} if trouble.mode in EXECUTED else {"0"})


@each_trouble
def test_a_commit_fails_and_has_committed_or_not(
    faults: Faults, trouble: Trouble
) -> None:
    faults.arm([trouble], committing)
    with pytest.raises((Error, MemoryError)):
        insert_together("1", "2")
    faults.disarm()
    assert queues() == ({"1", "2"} if trouble.mode in EXECUTED else set())


@each_trouble
def test_a_connection_is_cut_or_goes_on(faults: Faults, trouble: Trouble) -> None:
    insert("0")
    faults.arm([trouble], inserting("1"))
    with suppress(Error, MemoryError):
        insert("1")
    faults.disarm()
    assert is_usable() is (trouble.mode not in CUT)


@each_trouble
def test_what_came_before_in_the_transaction_is_there_or_undone(
    faults: Faults, trouble: Trouble
) -> None:
    # By hand: Django would roll back after the error in any case.
    connection.set_autocommit(False)
    insert("1")
    faults.arm([trouble], inserting("1"))
    with suppress(Error, MemoryError):
        insert("2")
    faults.disarm()
    with suppress(Error):  # where the connection is cut
        connection.commit()
    assert queues() == expected_after(trouble)


def expected_after(trouble: Trouble) -> set[str]:
    """Return what a transaction has committed whose second INSERT has failed."""
    is_undone = "Deadlock" in trouble.words or trouble.mode in (Mode.UNDONE, *CUT)
    if trouble.mode is Mode.AFTER:
        return {"1", "2"}
    # PostgreSQL commits nothing of a transaction in which a statement has failed.
    return set() if is_undone or connection.vendor == "postgresql" else {"1"}


@each_trouble
def test_no_connection_is_made(faults: Faults, trouble: Trouble) -> None:
    faults.arm([trouble], nth(1))
    with pytest.raises((Error, MemoryError)):
        connection.ensure_connection()
    assert [(each.call.verb, each.trouble) for each in faults.struck] == [
        ("connect", trouble)
    ]
    assert connection.connection is None


def test_the_calls_that_are_meant_are_struck_in_turn(faults: Faults) -> None:
    connection.ensure_connection()
    two = ALL[:2]
    faults.arm(two, every(2))
    for _ in range(8):
        with suppress(Error, MemoryError), connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    assert [each.trouble for each in faults.struck[:4]] == two * 2
    assert len(faults.struck) == faults.calls // 2


def test_who_is_spared_is_not_struck(faults: Faults) -> None:
    spared = Faults()
    with watched(spared):
        spared.arm(ALL, every(1))
        insert("1")
    assert (spared.calls, spared.struck) == (0, [])


def test_who_was_struck_keeps_no_connection(faults: Faults) -> None:
    faults.arm(ALL[:1], inserting("1"))
    with suppress(Error, MemoryError):
        insert("1")
    assert [each.call.raw for each in faults.struck] == [None]
