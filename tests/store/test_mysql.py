"""What only MySQL and MariaDB do: isolation, deadlocks, hints for locks."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from typing import Any

import pytest
from django.db import OperationalError, connection, transaction

from django_jobs.models import DeadLetter, Result, Task, Worker
from django_jobs.records import Demand
from django_jobs.states import Reason, Verdict
from django_jobs.store import Store, get_store
from django_jobs.store.errors import is_contended, mysql_code
from django_jobs.store.mysql import REPEATS, MySQLStore
from tests.faults import Faults, IsMeant, Mode, Trouble, troubles
from tests.statements import watched
from tests.store.samples import (
    WORKER,
    be_alive,
    claim,
    claim_new,
    insert,
    new_worker,
    on_both,
    outcome,
)
from tests.store.test_concurrency import together, worker_of
from tests.store.test_query_plans import explain, recorded
from tests.store.test_sessions import lock_row

pytestmark = on_both

DEADLOCK = 1213
LOCK_WAIT = 1205


@pytest.fixture
def store(_django_db_helper: None, requires: Callable[..., None]) -> MySQLStore:
    requires("mysql")
    store = get_store("default")
    assert isinstance(store, MySQLStore)
    return store


@pytest.fixture
def pauses(store: MySQLStore, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often a transaction was repeated."""
    pauses: list[int] = []
    monkeypatch.setattr(store, "pause", lambda: pauses.append(1))
    return pauses


def failing(times: int, code: int = DEADLOCK) -> Callable[[], str]:
    left = [code] * times

    def work() -> str:
        if left:
            raise OperationalError(left.pop(), "no")
        return "done"

    return work


def test_a_transaction_that_was_rolled_back_is_repeated(
    store: MySQLStore, pauses: list[int]
) -> None:
    assert store.in_transaction(failing(3)) == "done"
    assert len(pauses) == 3


def test_not_for_ever(store: MySQLStore, pauses: list[int]) -> None:
    with pytest.raises(OperationalError):
        store.in_transaction(failing(REPEATS + 1))
    assert len(pauses) == REPEATS


def test_other_errors_are_not_repeated(store: MySQLStore, pauses: list[int]) -> None:
    with pytest.raises(OperationalError):
        store.in_transaction(failing(1, code=1054))
    assert pauses == []


def test_a_call_waits_for_a_lock_once(store: MySQLStore, pauses: list[int]) -> None:
    (task,) = claim_new(store)
    with closing(connection.copy()) as other, connection.cursor() as cursor:
        lock_row(other, task.id)
        cursor.execute("SET innodb_lock_wait_timeout = 1")
        with pytest.raises(OperationalError) as caught:
            store.revoke([task.id])
    assert mysql_code(caught.value) == LOCK_WAIT
    assert is_contended(caught.value)
    assert pauses == []


def test_the_callers_transaction_is_never_repeated(
    store: MySQLStore, pauses: list[int]
) -> None:
    with pytest.raises(OperationalError), transaction.atomic():
        store.in_transaction(failing(1))
    assert pauses == []


def test_a_real_deadlock_is_survived(store: MySQLStore) -> None:
    first, second = (insert(store, 1, metadata="0")[0] for _ in range(2))

    def change(ids: list[str]) -> Callable[[], Any]:
        update = "UPDATE {task} SET metadata = metadata + 1 WHERE id = %s"

        def work() -> None:
            for task_id in ids:
                store.run(update, [store.to_id(task_id)])

        return lambda: [store.in_transaction(work) for _ in range(30)]

    together(change([first, second]), change([second, first]))
    assert set(Task.objects.values_list("metadata", flat=True)) == {"60"}


def test_workers_do_not_deadlock(store: MySQLStore, pauses: list[int]) -> None:
    for number in range(200):
        insert(store, queue_name="ab"[number % 2])
    demands = [Demand(9), Demand(9, ("a", "b")), Demand(9, ("b", "a")), Demand(9)]
    together(*[worker_of(store, demand) for demand in demands])
    assert not Task.objects.exists()
    assert pauses == []


def test_what_locks_rows_reads_no_others(store: MySQLStore) -> None:
    # On a small table the optimiser would rather read and lock all of it.
    insert(store, 105)
    tasks = claim(store, 100)
    with recorded() as statements, transaction.atomic():
        for verdict in (Verdict.SUCCESSFUL, Verdict.RELEASED, Verdict.FAILED):
            part, tasks = tasks[:30], tasks[30:]
            told = [outcome(task, verdict, started=0.0) for task in part]
            assert store.cycle(WORKER, told, Demand(1)).stale == []
        store.revoke([task.id for task in tasks])
        store.sign_off(WORKER)
        store.rescue()
    be_alive(store)  # else the claim's plan is to read nothing
    plans = [line for sql in statements if locks(sql) for line in explain(sql)]
    indexes = {line.split()[2] for line in plans if "django_jobs_task" in line}
    assert indexes == {
        "PRIMARY",
        "django_jobs_task_ready",
        "django_jobs_task_running",
    }
    assert [line for line in plans if "SCAN" in line] == []


def locks(sql: str) -> bool:
    return sql.startswith(("UPDATE", "DELETE")) or "FOR UPDATE" in sql


@pytest.mark.parametrize("level", ["repeatable read", None])
def test_every_transaction_is_read_committed(
    store: MySQLStore, level: str | None
) -> None:
    options = connection.settings_dict["OPTIONS"]
    connection.close()
    options["isolation_level"] = level
    try:
        assert store.in_transaction(lambda: sees_commits(store))
        assert len(claim_new(store, 2)) == 2
    finally:
        connection.close()
        del options["isolation_level"]


@pytest.fixture
def counts_changes(store: MySQLStore) -> Iterator[None]:
    """Have the server count the rows that a statement changes, not those it finds.

    Who sets flags of the client replaces those that Django sets.
    """
    options = connection.settings_dict["OPTIONS"]
    connection.close()
    options["client_flag"] = 0
    yield
    connection.close()
    del options["client_flag"]


@pytest.mark.usefixtures("counts_changes")
def test_a_row_that_is_as_wanted_already_is_there(store: MySQLStore) -> None:
    (task,) = claim_new(store)
    (waiting,) = insert(store)
    assert store.revoke([task.id]) == {task.id: "requested"}
    asked = {task.id: "requested", waiting: "revoked"}
    assert store.revoke([task.id, waiting]) == asked
    for lease, is_ours in ((task.lease, True), (task.lease + 1, False)):
        for _ in range(2):
            saved = store.save_metadata(WORKER, task.id, lease, progress="1")
            assert saved is is_ours


def sees_commits(store: MySQLStore) -> bool:
    """Does the open transaction see what others commit meanwhile?"""
    before = Task.objects.count()
    thread = threading.Thread(target=lambda: (insert(store), connection.close()))
    thread.start()
    thread.join(60)
    return Task.objects.count() > before


def test_a_locked_task_is_left_out(store: MySQLStore) -> None:
    first, second = insert(store, 2)
    with transaction.atomic():
        Task.objects.select_for_update().get(pk=first)
        (others,) = together(lambda: claim(store))
    assert [task.id for task in others] == [second]


def test_ids_are_as_the_server_stores_them(store: Store) -> None:
    assert isinstance(store, MySQLStore)
    (task,) = claim_new(store)
    assert len(task.id) == 36
    is_native = connection.features.has_native_uuid_field
    assert store.to_id(WORKER) == (WORKER if is_native else WORKER.replace("-", ""))


def test_ids_without_hyphens_serve_as_well(
    store: MySQLStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As on MySQL; MariaDB compares its own type with either form.
    monkeypatch.setattr(store, "has_native_ids", False)
    (task,) = claim_new(store)
    assert store.revoke_requests(WORKER) == []
    assert store.held(WORKER) == [(task.id, 1)]


# -- what is too long for the server -------------------------------------------------


@pytest.mark.parametrize(
    ("verdict", "field"),
    [
        (Verdict.SUCCESSFUL, "metadata"),
        (Verdict.SUCCESSFUL, "return_value"),
        (Verdict.SUCCESSFUL, "log"),
        (Verdict.RETRY, "metadata"),
        (Verdict.RETRY, "log"),
    ],
)
def test_an_outcome_that_is_too_long_costs_only_itself(
    store: MySQLStore, verdict: Verdict, field: str
) -> None:
    good, bad = claim_new(store, 2)
    waiting = insert(store)
    # The server reads some of it and hangs up: the driver is still writing.
    text = "x" * (longest_statement() + 4 * 2**20)
    changes: Any = {"verdict": verdict, field: text}
    claimed, stale, _ = store.cycle(
        WORKER, [outcome(good), outcome(bad, **changes)], Demand(5)
    )
    assert ([task.id for task in claimed], stale) == (waiting, [])
    assert str(Result.objects.get().pk) == good.id
    dead = DeadLetter.objects.get()
    assert (str(dead.pk), dead.reason) == (bad.id, Reason.CORRUPT)


@pytest.mark.parametrize("excess", [2**19, 2**22])
def test_backslashes_may_make_it_too_long(store: MySQLStore, excess: int) -> None:
    (task,) = claim_new(store)
    quotes = '"' * (longest_statement() // 2 + excess)
    assert store.cycle(WORKER, [outcome(task, return_value=quotes)], None).stale == []
    assert DeadLetter.objects.get().reason == Reason.CORRUPT


@pytest.mark.parametrize("code", [2006, 2013])
def test_a_lost_connection_is_not_blamed_on_a_short_outcome(
    store: MySQLStore, code: int
) -> None:
    (task,) = claim_new(store)
    lost = OperationalError(code, "gone away")
    assert not store.refuses(lost, [outcome(task, return_value="x" * 2**20)])
    long = outcome(task, return_value="x" * longest_statement())
    assert store.refuses(lost, [outcome(task), long])


def longest_statement() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT @@max_allowed_packet")
        return int(cursor.fetchone()[0])


#: After these a transaction is repeated, by the call itself or by who made it.
CONFLICTS = [
    trouble
    for trouble in troubles(Mode.BEFORE)
    if trouble.words.startswith(("Deadlock", "Lock wait", "Record has changed"))
]


def switching(place: int) -> IsMeant:
    """Mean one of the switches of a connection to a transaction and back."""
    places = itertools.count(1)
    return lambda call, _: call.text == "SET AUTOCOMMIT" and next(places) == place


@pytest.mark.parametrize("place", [1, 2, 3])
@pytest.mark.parametrize("trouble", CONFLICTS, ids=str)
def test_nothing_is_written_where_nobody_commits(
    store: MySQLStore, pauses: list[int], trouble: Trouble, place: int
) -> None:
    faults = Faults()
    faults.spared.clear()
    with watched(faults):
        faults.arm([trouble], switching(place))
        with suppress(OperationalError):  # who made the call does so again
            store.register(new_worker(), 30)
        assert faults.struck
        store.register(new_worker(id=WORKER), 30)
    assert Worker.objects.filter(pk=WORKER).exists()
