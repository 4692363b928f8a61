"""The chores that any worker does for all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from django_jobs.conf import Conf
from django_jobs.worker import maintenance as module
from django_jobs.worker import processes
from django_jobs.worker.identity import LOCK_GRACE
from django_jobs.worker.maintenance import (
    BREATH,
    PRUNE_BATCH,
    RESCUE_BATCH,
    Chore,
    chores,
)
from django_jobs.worker.supervisor import IDLE_TICK
from tests.worker.parts import NOBODY, Clock


class ChoreStore:
    """Answers as told, and keeps what it was asked."""

    def __init__(self) -> None:
        self.neighbours: list[tuple[str, int, str]] = []
        self.expired: list[str] = []
        self.unlocked: list[str] = []
        self.rescuable: list[int] = []
        self.prunable: list[int] = []
        self.is_our_turn = True
        self.asked: list[tuple[Any, ...]] = []

    def workers_of_host(self, boot: str) -> list[tuple[str, int, str]]:
        self.asked.append(("workers_of_host", boot))
        return self.neighbours

    def expire_workers(self, worker_ids: list[str]) -> None:
        self.expired += worker_ids

    def expire_unlocked(self) -> list[str]:
        self.asked.append(("expire_unlocked",))
        return self.unlocked

    def rescue(self, limit: int) -> list[str]:
        self.asked.append(("rescue", limit))
        count = self.rescuable.pop(0) if self.rescuable else 0
        return [f"t{number}" for number in range(count)]

    def notify(self) -> None:
        self.asked.append(("notify",))

    def claim_chore(self, name: str, every: float) -> bool:
        self.asked.append(("claim_chore", name, every))
        return self.is_our_turn

    def prune(self, limit: int) -> int:
        self.asked.append(("prune", limit))
        return self.prunable.pop(0) if self.prunable else 0


@pytest.fixture
def store() -> Any:
    return ChoreStore()


@pytest.fixture(autouse=True)
def boot(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(processes, "boot", lambda: "this boot")
    return "this boot"


def chore(name: str) -> Chore:
    return next(each for each in chores(30.0) if each.name == name)


# -- rescue ------------------------------------------------------------------------


def test_neighbours_whose_process_is_gone_are_expired(store: Any) -> None:
    ours = processes.pid_start(os.getpid())
    store.neighbours = [
        ("alive", os.getpid(), ours),
        ("gone", NOBODY, "77"),
        ("its number was given to another", os.getpid(), str(int(ours) - 1)),
        ("nothing known of its start", NOBODY, ""),
    ]
    assert chore("rescue").work(store) is False
    assert store.expired == ["gone", "its number was given to another"]
    assert store.asked == [("workers_of_host", "this boot"), ("rescue", RESCUE_BATCH)]


def test_a_neighbour_that_cannot_be_looked_at_keeps_its_lease(
    store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = processes.pid_start(os.getpid())
    store.neighbours = [("hidden", os.getpid(), begin), ("gone", NOBODY, "77")]

    def refuse(path: Path) -> bytes:
        raise PermissionError("of another user")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    chore("rescue").work(store)
    assert store.expired == ["gone"]


def test_without_dead_neighbours_none_is_expired(
    store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.neighbours = [("alive", os.getpid(), processes.pid_start(os.getpid()))]
    monkeypatch.delattr(ChoreStore, "expire_workers")
    assert chore("rescue").work(store) is False


def test_where_the_boot_is_not_known_neighbours_are_left_alone(
    store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "boot", lambda: "")
    store.neighbours = [("gone", NOBODY, "77")]
    chore("rescue").work(store)
    assert store.expired == []
    assert store.asked == [("claim_chore", "rescue", 2.625), ("rescue", RESCUE_BATCH)]


def test_who_does_not_have_the_turn_looks_for_its_neighbours_only(store: Any) -> None:
    store.is_our_turn = False
    chore("rescue").work(store)
    assert [asked[0] for asked in store.asked] == ["workers_of_host", "claim_chore"]


def test_dead_neighbours_and_a_batch_that_was_full_need_no_turn(store: Any) -> None:
    store.is_our_turn = False
    rescue = chore("rescue")
    store.neighbours = [("gone", NOBODY, "77")]
    store.rescuable = [RESCUE_BATCH, 3]
    assert rescue.work(store) is True
    store.neighbours = []
    assert [rescue.work(store), rescue.work(store)] == [False, False]
    assert store.asked.count(("rescue", RESCUE_BATCH)) == 2


def test_a_worker_that_is_alone_has_the_turn_each_time_it_asks() -> None:
    for lease in (6.0, 30.0):
        one = next(each for each in chores(lease) if each.name == "rescue")
        soonest = 0.9 * one.every
        assert one.work._every < soonest  # type: ignore[attr-defined]


@pytest.mark.parametrize("count", [0, 1])
def test_who_waits_for_tasks_is_told_of_those_that_are_back(
    store: Any, count: int
) -> None:
    store.rescuable = [count]
    chore("rescue").work(store)
    assert (("notify",) in store.asked) is (count > 0)


@pytest.mark.parametrize(
    ("count", "has_more"), [(0, False), (7, False), (RESCUE_BATCH, True)]
)
def test_a_full_batch_of_rescued_means_more(
    store: Any, count: int, has_more: bool, caplog: pytest.LogCaptureFixture
) -> None:
    store.rescuable = [count]
    assert chore("rescue").work(store) is has_more
    assert (f"event=rescued tasks={count} ids=t0,t1" in caplog.text) is (count > 0)


FIRST_TEN = "0,1,2,3,4,5,6,7,8,9"


@pytest.mark.parametrize(
    ("count", "ids"), [(1, "0"), (10, FIRST_TEN), (12, f"{FIRST_TEN},+2")]
)
def test_the_log_names_the_workers_that_are_dead(
    store: Any, count: int, ids: str, caplog: pytest.LogCaptureFixture
) -> None:
    store.neighbours = [(str(number), NOBODY, "77") for number in range(count)]
    chore("rescue").work(store)
    assert caplog.messages == [f"event=workers_dead workers={count} ids={ids}"]
    assert len(store.expired) == count


# -- locks -------------------------------------------------------------------------


def fast(store: Any) -> Chore:
    return next(
        each for each in chores(30.0, has_locks=True) if each.name == "fast_rescue"
    )


def test_without_locks_nobody_looks_for_them() -> None:
    assert [each.name for each in chores(30.0)] == ["rescue", "prune"]


def test_the_tasks_of_who_lost_its_lock_are_taken_back_at_once(
    store: Any, caplog: pytest.LogCaptureFixture
) -> None:
    store.unlocked = ["dead"]
    store.rescuable = [RESCUE_BATCH, 3]
    assert fast(store).work(store) is False
    assert [asked[0] for asked in store.asked] == [
        *("claim_chore", "expire_unlocked"),
        *("rescue", "notify"),
        *("rescue", "notify"),
    ]
    assert "event=workers_dead workers=1 ids=dead" in caplog.messages


def test_while_all_have_their_locks_nothing_is_rescued(store: Any) -> None:
    fast(store).work(store)
    store.is_our_turn = False
    fast(store).work(store)
    assert [asked[0] for asked in store.asked] == [
        *("claim_chore", "expire_unlocked"),
        "claim_chore",
    ]


def test_two_heartbeats_and_a_look_are_less_than_twelve_seconds(store: Any) -> None:
    assert LOCK_GRACE * Conf().HEARTBEAT + 1.1 * fast(store).every < 12


# -- prune -------------------------------------------------------------------------


def test_one_worker_at_a_time_prunes(store: Any) -> None:
    store.is_our_turn = False
    assert chore("prune").work(store) is False
    assert store.asked == [("claim_chore", "prune", module.PRUNE_EVERY)]


def test_who_has_the_turn_prunes_until_there_is_no_more(store: Any) -> None:
    prune = chore("prune")
    store.prunable = [PRUNE_BATCH, PRUNE_BATCH, 3]
    assert [prune.work(store) for _ in range(3)] == [True, True, False]
    verbs = [asked[0] for asked in store.asked]
    assert verbs == ["claim_chore", "prune", "prune", "prune"]


def test_the_next_round_asks_again_whose_turn_it_is(store: Any) -> None:
    prune = chore("prune")
    for _ in range(2):
        prune.work(store)
    verbs = [asked[0] for asked in store.asked]
    assert verbs == ["claim_chore", "prune"] * 2


# -- when --------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def test_chores_are_due_at_once_and_then_at_their_pace(clock: Clock) -> None:
    one = Chore("x", 10.0, lambda store: False)
    assert one.due <= clock.now
    one.put_off()
    assert 9 <= one.due - clock.now <= 11


def test_a_chore_that_has_more_lets_others_go_first(clock: Clock) -> None:
    one = Chore("x", 10.0, lambda store: False)
    one.put_off(has_more=True)
    assert clock.now < one.due == clock.now + BREATH


@pytest.mark.parametrize(("lease", "every"), [(30.0, 3.5), (2.0, 2 / 3)])
def test_rescue_comes_well_within_a_lease(lease: float, every: float) -> None:
    rescue = next(each for each in chores(lease) if each.name == "rescue")
    assert rescue.every == pytest.approx(every)
    assert 1.1 * rescue.every + IDLE_TICK < 5
