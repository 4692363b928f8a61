"""Locks that tell sooner that a worker is dead."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from typing import Any

import pytest
from django.db import connections
from django.db.models import F

from django_jobs.models import Task, Worker
from django_jobs.store import Store, locks
from django_jobs.store.locks import take_lock
from tests.store.samples import OTHER_WORKER, WORKER, claim_new, new_worker, on_both
from tests.worker.parts import wait_for

pytestmark = on_both

GRACE = 10.0


@pytest.fixture(autouse=True)
def _only_postgresql(requires: Callable[..., None]) -> None:
    requires("postgresql")


@pytest.fixture
def session(store: Store) -> Iterator[Any]:
    """Return a connection of its own to the store's database."""
    with closing(connections[store.alias].copy()) as connection:
        connection.ensure_connection()
        yield connection


def register(store: Store, worker_id: str = WORKER) -> None:
    store.register(new_worker(id=worker_id), 60.0)


def row(store: Store, worker_id: str = WORKER) -> Worker:
    return Worker.objects.using(store.alias).get(pk=worker_id)


def hang_up(store: Store, session: Any) -> None:
    """Close a connection, and wait until the server has noticed."""
    session.close()
    wait_for(lambda: locks_held(store) == 0)


def locks_held(store: Store) -> int:
    with connections[store.alias].cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = "
            "(SELECT oid FROM pg_database WHERE datname = current_database())"
        )
        return int(cursor.fetchone()[0])


def be_silent(store: Store, seconds: float) -> None:
    """Have the latest sign of life of each worker be so long ago."""
    workers = Worker.objects.using(store.alias)
    workers.update(seen_at=F("seen_at") - timedelta(seconds=seconds))


def test_who_is_silent_and_lost_its_lock_is_dead(store: Store, session: Any) -> None:
    register(store)
    claim_new(store)
    assert take_lock(session, WORKER)
    assert store.note_lock(WORKER, GRACE)
    be_silent(store, GRACE)
    assert store.expire_unlocked() == []
    hang_up(store, session)
    assert store.expire_unlocked() == [WORKER]
    assert not store.renew(WORKER, 60.0)
    assert len(store.rescue()) == 1
    assert not Task.objects.using(store.alias).exclude(state="READY").exists()


def test_who_lost_its_lock_and_is_not_silent_is_alive(
    store: Store, session: Any
) -> None:
    register(store)
    take_lock(session, WORKER)
    store.note_lock(WORKER, GRACE)
    hang_up(store, session)
    be_silent(store, GRACE - 1)
    assert store.expire_unlocked() == []
    assert store.renew(WORKER, 60.0)


def test_a_sign_of_life_ends_the_silence(store: Store, session: Any) -> None:
    register(store)
    take_lock(session, WORKER)
    store.note_lock(WORKER, GRACE)
    hang_up(store, session)
    be_silent(store, GRACE)
    store.renew(WORKER, 60.0)
    assert store.expire_unlocked() == []


def test_who_never_had_a_lock_is_not_missing_it(store: Store, session: Any) -> None:
    register(store)
    assert not store.note_lock(WORKER, GRACE)
    be_silent(store, GRACE)
    assert row(store).lock_server is None
    assert store.expire_unlocked() == []


def test_each_worker_has_a_lock_of_its_own(store: Store, session: Any) -> None:
    register(store), register(store, OTHER_WORKER)
    take_lock(session, OTHER_WORKER)
    with closing(session.copy()) as another:
        take_lock(another, WORKER)
        assert store.note_lock(WORKER, GRACE) and store.note_lock(OTHER_WORKER, GRACE)
    wait_for(lambda: locks_held(store) == 1)
    be_silent(store, GRACE)
    assert store.expire_unlocked() == [WORKER]


def test_a_lock_of_another_server_or_before_its_restart_is_no_evidence(
    store: Store, session: Any
) -> None:
    register(store)
    take_lock(session, WORKER)
    store.note_lock(WORKER, GRACE)
    hang_up(store, session)
    be_silent(store, GRACE)
    earlier = F("lock_server") - timedelta(microseconds=1)
    Worker.objects.using(store.alias).update(lock_server=earlier)
    assert store.expire_unlocked() == []


def test_a_lock_is_taken_by_one_session(store: Store, session: Any) -> None:
    with closing(session.copy()) as before:
        assert take_lock(before, WORKER)
        assert not take_lock(session, WORKER)
        hang_up(store, before)
    assert take_lock(session, WORKER)


def test_who_is_somebody_else_now_lets_go_of_the_former_lock(
    store: Store, session: Any
) -> None:
    register(store), register(store, OTHER_WORKER)
    take_lock(session, WORKER)
    take_lock(session, OTHER_WORKER)
    assert not store.note_lock(WORKER, GRACE)
    assert store.note_lock(OTHER_WORKER, GRACE)


def test_a_session_that_a_pooler_shares_out_takes_no_lock(
    store: Store, session: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "SESSION", "SELECT pg_backend_pid() + 1")
    assert not take_lock(session, WORKER)


def test_the_server_notices_soon_that_the_host_of_the_session_is_gone(
    store: Store, session: Any
) -> None:
    take_lock(session, WORKER)
    with session.cursor() as cursor:
        cursor.execute("SHOW tcp_keepalives_idle")
        assert cursor.fetchone() == ("3",)


def test_without_the_columns_it_is_done_without(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(store)
    for name in ("NOTE", "ANY_SILENT"):
        statement = getattr(locks, name).replace("lock_server", "lock_never_made")
        monkeypatch.setattr(locks, name, statement)
    assert store.note_lock(WORKER, GRACE) is False
    assert store.expire_unlocked() == []
    assert store.renew(WORKER, 60.0)
