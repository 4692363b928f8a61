"""Which queues a claim asks, in which order and for how many."""

from __future__ import annotations

from collections import Counter

from django_jobs.worker.options import WorkerOptions
from django_jobs.worker.turns import Turns

WEIGHTED = WorkerOptions(
    database="default", queues=("often", "seldom", "rarely"), weights=(6, 3, 1)
)


def test_without_queues_all_are_asked_at_once_but_the_excluded() -> None:
    demand = Turns(WorkerOptions(database="default", exclude=("video",))).demand(7)
    assert (demand.queues, demand.exclude) == ((), ("video",))
    assert (demand.limit, demand.is_strict) == (7, False)


def test_without_weights_the_order_is_strict() -> None:
    demand = Turns(WorkerOptions(database="default", queues=("b", "a"))).demand(7)
    assert (demand.queues, demand.limit, demand.is_strict) == (("b", "a"), 7, True)


def test_large_claims_give_each_queue_its_share_in_turn() -> None:
    turns = Turns(WEIGHTED)
    shares: Counter[str] = Counter()
    for demand in (turns.demand(100) for _ in range(30)):
        shares[demand.queues[0]] += demand.limit
    assert shares == {"often": 600, "seldom": 300, "rarely": 100}


def test_the_other_queues_follow_so_that_an_empty_one_costs_no_slot() -> None:
    turns = Turns(WEIGHTED)
    asked = [turns.demand(wanted).queues for wanted in (1, 100) * 10]
    assert {frozenset(queues) for queues in asked} == {frozenset(WEIGHTED.queues)}
    assert {len(queues) for queues in asked} == {3}


def test_in_small_claims_the_weights_are_the_odds() -> None:
    turns = Turns(WEIGHTED)
    first = Counter(turns.demand(1).queues[0] for _ in range(6000))
    # Five standard deviations of a binomial distribution of 6000 draws.
    assert abs(first["often"] - 3600) < 190
    assert abs(first["rarely"] - 600) < 117
