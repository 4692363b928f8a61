"""How many tasks to claim, and which child runs them."""

from __future__ import annotations

import pytest

from django_jobs.worker import dispatcher as module
from django_jobs.worker.dispatcher import Dispatcher, time_limit_of
from django_jobs.worker.pool import Phase
from tests.worker.parts import ASYNC, SHORT, FakeChild, claimed, ids, pool_of

#: The room for coroutines of an idle worker that has seen none yet.
ONE_COROUTINE = 1


def dispatcher_of(*children: FakeChild) -> Dispatcher:
    return Dispatcher(pool_of(*children))


def knowing(seconds: float, *children: FakeChild, name: str = SHORT) -> Dispatcher:
    """Return a dispatcher that has seen the task take so long."""
    made = dispatcher_of(*children)
    made.learn(name, name == ASYNC, seconds)
    return made


def sent(child: FakeChild) -> list[str]:
    return child.channel.sent()  # type: ignore[attr-defined,no-any-return]


def posted(child: FakeChild) -> list[str]:
    return [message[0] for message in child.channel.posted]  # type: ignore[attr-defined]


# -- demand ------------------------------------------------------------------------


def test_of_unknown_tasks_only_as_many_are_claimed_as_slots_are_free() -> None:
    children = FakeChild(threads=3), FakeChild(threads=3)
    dispatcher = dispatcher_of(*children)
    assert dispatcher.demand(0) == 6 + ONE_COROUTINE
    dispatcher.take([claimed() for _ in range(4)], now=0)
    dispatcher.dispatch(now=0)
    assert dispatcher.demand(0) == 2 + ONE_COROUTINE


def test_short_tasks_are_claimed_up_to_the_horizon() -> None:
    dispatcher = knowing(0.01, FakeChild())
    assert dispatcher.demand(0) == module.HORIZON / 0.01 + ONE_COROUTINE


def test_of_the_shortest_tasks_no_more_than_a_fixed_number_are_claimed() -> None:
    dispatcher = knowing(0.0, FakeChild())
    assert dispatcher.demand(0) == module.MOST_WAITING + 1 + ONE_COROUTINE


def test_behind_a_task_that_turned_out_to_be_long_none_is_claimed() -> None:
    dispatcher = knowing(0.01, FakeChild(threads=2))
    dispatcher.take([claimed()], now=0)
    dispatcher.dispatch(now=0)
    assert dispatcher.demand(module.LONG - 0.01) > 2 + ONE_COROUTINE
    # Only for the slot that is free: what cannot be sent would come and go.
    assert dispatcher.demand(module.LONG) == 1 + ONE_COROUTINE


def test_what_is_buffered_is_not_claimed_again() -> None:
    dispatcher = knowing(0.01, FakeChild())
    dispatcher.take([claimed() for _ in range(4)], now=0)
    assert dispatcher.demand(0) == 6


def test_children_that_do_not_take_tasks_are_not_claimed_for() -> None:
    child = FakeChild(threads=4)
    dispatcher = dispatcher_of(child)
    for child.phase in (Phase.STARTING, Phase.RETIRING, Phase.KILLED):
        assert dispatcher.demand(0) == 0


def test_the_average_follows_the_newest_runs() -> None:
    dispatcher = knowing(0.001, FakeChild())
    for _ in range(50):
        dispatcher.learn(SHORT, False, 1.0)
    assert dispatcher.demand(0) == 1 + ONE_COROUTINE


# -- coroutines --------------------------------------------------------------------


def test_the_window_of_coroutines_doubles_while_they_come() -> None:
    dispatcher = dispatcher_of(FakeChild(coroutines=100))
    demands = []
    for _ in range(5):
        demands.append(dispatcher.demand(0) - 1)
        dispatcher.take([claimed(ASYNC) for _ in range(demands[-1])], now=0)
        dispatcher.dispatch(now=0)
    assert demands == [1, 2, 4, 8, 16]


def test_the_window_of_coroutines_halves_when_others_come() -> None:
    dispatcher = dispatcher_of(FakeChild(coroutines=100))
    dispatcher.take([claimed(ASYNC) for _ in range(20)], now=0)
    dispatcher.dispatch(now=0)
    before = dispatcher.demand(0) - 1
    dispatcher.take([claimed()], now=0)
    dispatcher.dispatch(now=0)
    assert (before, dispatcher.demand(0)) == (40, 20)


def test_no_more_coroutines_are_claimed_than_there_are_slots() -> None:
    child = FakeChild(coroutines=10)
    dispatcher = dispatcher_of(child)
    dispatcher.take([claimed(ASYNC) for _ in range(10)], now=0)
    dispatcher.dispatch(now=0)
    assert len(child.lanes[True].running) == 10
    assert dispatcher.demand(0) == 1


def test_while_sync_tasks_find_no_place_none_is_claimed_for_coroutines() -> None:
    dispatcher = dispatcher_of(FakeChild())
    dispatcher.take([claimed(), claimed()], now=0)
    dispatcher.dispatch(now=0)
    assert (len(dispatcher), dispatcher.demand(0)) == (1, 0)


# -- sending -----------------------------------------------------------------------


def test_free_slots_come_first_and_the_least_loaded_child_before_the_others() -> None:
    busy, idle = FakeChild(threads=2), FakeChild(threads=2)
    dispatcher = dispatcher_of(busy, idle)
    idle.phase = Phase.STARTING
    dispatcher.take([claimed()], now=0)
    dispatcher.dispatch(now=0)
    idle.phase = Phase.READY
    dispatcher.take(tasks := [claimed() for _ in range(3)], now=0)
    dispatcher.dispatch(now=0)
    assert sent(idle) == ids(tasks[:2])
    assert sent(busy)[1:] == ids(tasks[2:])


def test_short_tasks_are_sent_ahead_up_to_the_horizon() -> None:
    child = FakeChild()
    dispatcher = knowing(0.02, child)
    dispatcher.take(tasks := [claimed() for _ in range(20)], now=0)
    dispatcher.dispatch(now=0)
    assert sent(child) == ids(tasks[:5])


def test_the_shortest_tasks_are_sent_ahead_up_to_a_fixed_number() -> None:
    child = FakeChild()
    dispatcher = knowing(0.0, child)
    dispatcher.take([claimed() for _ in range(500)], now=0)
    dispatcher.dispatch(now=0)
    assert len(child.lanes[False].waiting) == module.MOST_WAITING


def test_nothing_is_sent_behind_a_task_of_unknown_length() -> None:
    child = FakeChild()
    dispatcher = knowing(0.001, child)
    dispatcher.take([claimed("never.seen"), claimed()], now=0)
    dispatcher.dispatch(now=0)
    assert len(sent(child)) == 1


def test_nothing_is_sent_behind_a_task_known_to_be_long() -> None:
    child = FakeChild()
    dispatcher = knowing(0.001, child)
    dispatcher.learn("a.long.one", False, 10.0)
    dispatcher.take([claimed("a.long.one"), claimed()], now=0)
    dispatcher.dispatch(now=0)
    assert len(sent(child)) == 1


def test_nothing_is_sent_behind_a_task_that_turned_out_to_be_long() -> None:
    child = FakeChild()
    dispatcher = knowing(0.001, child)
    dispatcher.take([claimed()], now=0)
    dispatcher.dispatch(now=0)
    dispatcher.take([claimed()], now=module.LONG)
    dispatcher.dispatch(now=module.LONG)
    assert len(sent(child)) == 1


def test_coroutines_and_sync_tasks_do_not_take_each_others_slots() -> None:
    child = FakeChild(threads=1, coroutines=2)
    dispatcher = dispatcher_of(child)
    dispatcher.take([claimed(ASYNC), claimed(ASYNC), claimed()], now=0)
    dispatcher.dispatch(now=0)
    assert [len(child.lanes[kind].running) for kind in (False, True)] == [1, 2]


def test_a_child_never_gets_more_than_it_may_run_before_it_is_replaced() -> None:
    child = FakeChild(threads=2, recycle_after=5)
    child.finished = 2
    dispatcher = knowing(0.001, child)
    dispatcher.learn(ASYNC, True, 0.001)
    dispatcher.take([claimed() for _ in range(10)], now=0)
    dispatcher.take([claimed(ASYNC) for _ in range(10)], now=0)
    dispatcher.dispatch(now=0)
    assert len(sent(child)) == 3
    assert child.may_take == 0


@pytest.mark.parametrize("name", [SHORT, ASYNC])
def test_no_more_is_claimed_than_children_may_run(name: str) -> None:
    dispatcher = knowing(0.0001, FakeChild(recycle_after=5), name=name)
    assert dispatcher.demand(0) <= 5 + 1


# -- giving back -------------------------------------------------------------------


def test_what_comes_back_goes_first_again_and_in_its_order() -> None:
    child = FakeChild(threads=10)
    dispatcher = dispatcher_of(child)
    later, back = [claimed(), claimed()], [claimed(), claimed(), claimed()]
    dispatcher.take(later, now=0)
    dispatcher.take_back(back, now=0)
    dispatcher.dispatch(now=0)
    assert sent(child) == ids([*back, *later])


def test_what_waits_behind_a_long_task_is_asked_back_once() -> None:
    child = FakeChild()
    dispatcher = knowing(0.001, child)
    dispatcher.take([claimed(), claimed()], now=0)
    dispatcher.dispatch(now=0)
    dispatcher.recall(now=module.LONG / 2)
    assert posted(child) == ["run"]
    for _ in range(2):
        dispatcher.recall(now=2 * module.LONG)
    assert posted(child) == ["run", "recall"]


def test_tasks_that_nobody_takes_are_given_up_after_a_while() -> None:
    dispatcher = dispatcher_of(FakeChild())
    dispatcher.take(old := [claimed(), claimed()], now=0)
    dispatcher.dispatch(now=0)
    dispatcher.take([claimed()], now=module.PATIENCE)
    assert dispatcher.impatient(module.PATIENCE) == []
    assert dispatcher.impatient(module.PATIENCE + 0.01) == old[1:]
    assert len(dispatcher) == 1


def test_after_giving_up_none_is_claimed_for_coroutines_for_a_while() -> None:
    dispatcher = dispatcher_of(FakeChild())
    dispatcher.take([claimed(), claimed()], now=0)
    dispatcher.dispatch(now=0)
    dispatcher.impatient(now=1)
    assert dispatcher.demand(1) == 0
    assert dispatcher.demand(1 + module.COROUTINE_PAUSE) == ONE_COROUTINE


def test_taking_all_empties_both_buffers() -> None:
    dispatcher = dispatcher_of()
    tasks = [claimed(), claimed(ASYNC)]
    dispatcher.take(tasks, now=0)
    assert dispatcher.take_all() == tasks
    assert len(dispatcher) == 0


# -- limits ------------------------------------------------------------------------


def test_the_limit_of_a_task_goes_before_that_of_its_definition() -> None:
    assert time_limit_of(claimed("sample.send", time_limit=3.0)) == 3.0
    assert time_limit_of(claimed("sample.send")) == 60.0
    assert time_limit_of(claimed("never.seen")) is None
