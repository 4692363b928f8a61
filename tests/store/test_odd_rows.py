"""Any row that a database takes: whatever is in it, its neighbours go their way.

Each column with each odd value, in each state, through all that workers and people ask
of a store. The odd row may become a dead letter, run or stay; it costs only itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connections
from django.db.models import Model

from django_jobs import control
from django_jobs.management import explaining, rendering
from django_jobs.models import Attempt, DeadLetter, Result, Task, Worker
from django_jobs.records import Demand, Outcome
from django_jobs.states import State, Verdict
from django_jobs.store import Store
from tests.store.samples import (
    OTHER_WORKER,
    WORKER,
    be_alive,
    claim,
    claim_new,
    complete,
    die,
    insert,
    new_worker,
    on_both,
    outcome,
    set_by_hand,
)

pytestmark = [on_both, pytest.mark.faults, pytest.mark.matrix]


def _day_that_is_not() -> str:
    """Return the next 30th of February."""
    now = datetime.now(UTC)
    return f"{now.year + (now.month > 2)}-02-30 10:00:00"


#: What is no text, as SQL writes it.
NO_TEXT = object()
VALUES: list[Any] = [
    *("abc", "", b"\xff\0", NO_TEXT, None),
    *(5, -1.5, 1e308, float("inf"), 2**63 - 1, -(2**63), 2**31 - 1),
    *("2026-13-45 99:99:99", "0000-00-00 00:00:00", "0000-01-00 00:00:00"),
    *("0001-01-01 00:00:00", "9999-12-31 23:59:59", "294276-12-31 23:59:59"),
    *("0044-03-15 12:00 BC", "infinity", "-infinity", "NaN"),
    *("2026-11-21T10:00:00+14:00", "20261121", _day_that_is_not()),
]
OF_NOBODY = "00000000-0000-4000-8000-0000000000aa"
#: Of an id, by how it is written.
FORMS: list[Callable[[str], str]] = [
    str,
    str.upper,
    lambda task_id: task_id.replace("-", "").upper(),
    lambda task_id: f"{{{task_id}}}",
    lambda task_id: "z" * 32,
]


def _values(column: str) -> Iterator[Any]:
    yield from VALUES
    if column.endswith("id"):
        yield from (form(OF_NOBODY) for form in FORMS)


def _columns(model: type[Model]) -> list[str]:
    return [field.column for field in model._meta.concrete_fields]


def _is_written(store: Store, key: str, column: str, value: Any, table: str) -> bool:
    """Write a value into a row; False when the database does not take it."""
    given = (b"\xffA", "CAST(%s AS TEXT)") if value is NO_TEXT else (value,)
    if value is NO_TEXT and connections[store.alias].vendor != "sqlite":
        return False
    try:
        set_by_hand(store, key, column, *given, table=table)
    except Exception:  # some are of the driver
        connections[store.alias].close()
        return False
    return True


def _empty(store: Store) -> None:
    for model in (Task, Result, DeadLetter, Attempt, Worker):
        model._base_manager.using(store.alias).all()._raw_delete(store.alias)


# -- tasks ---------------------------------------------------------------------------


def _ready(store: Store) -> tuple[list[str], list[Outcome]]:
    return insert(store, 2), []


def _scheduled(store: Store) -> tuple[list[str], list[Outcome]]:
    ids = insert(store, 2, delay=100.0)
    due = store.now() - timedelta(seconds=1)
    Task.objects.filter(pk=ids[1]).update(run_after=due)
    return ids, []


def _blocked(store: Store) -> tuple[list[str], list[Outcome]]:
    ids = insert(store, 2)
    Task.objects.filter(pk=ids[0]).update(state=State.BLOCKED)
    return ids, []


def _of_a_dead_worker(store: Store) -> tuple[list[str], list[Outcome]]:
    tasks = claim_new(store, 2, queue_name="default")
    Task.objects.update(worker_id=OTHER_WORKER)
    be_alive(store, OTHER_WORKER)
    die(store, OTHER_WORKER)
    return [task.id for task in tasks], []


def _of_ours(verdict: Verdict | None) -> Callable[[Store], Any]:
    def make(store: Store) -> tuple[list[str], list[Outcome]]:
        tasks = claim_new(store, 2)
        told = [outcome(task, verdict, delay=0.0) for task in tasks if verdict]
        return [task.id for task in tasks], told

    return make


STATES = {
    "ready": _ready,
    "scheduled": _scheduled,
    "blocked": _blocked,
    "of_a_dead_worker": _of_a_dead_worker,
    "successful": _of_ours(Verdict.SUCCESSFUL),
    "crashed": _of_ours(Verdict.CRASHED),
    "unknown": _of_ours(Verdict.UNKNOWN),
    "held": _of_ours(None),
}


def _look(store: Store) -> None:
    """Ask what only tells."""
    assert (store.next_due() or 0) < 366 * 86_400
    held, asked = store.held(WORKER), store.revoke_requests(WORKER)
    assert {type(each) for each, _ in held} | set(map(type, asked)) <= {str}
    store.workers_of_host("boot")
    for line in store.find():
        store.fetch(line.id), store.attempts(line.id)
    store.find_dead_letters(), store.find_dead_letters(error="ValueError")
    store.depths(), store.backlog(), store.workers(), store.count_prunable()


def _work(store: Store, outcomes: list[Outcome]) -> None:
    """Do all that workers do, until there is nothing to claim."""
    _look(store)
    store.promote()
    store.adopt(60.0, lambda queue, name: True)
    assert store.renew(WORKER, 3600.0)
    store.rescue(), store.prune()
    store.cycle(WORKER, outcomes, None)
    for _ in range(10):
        store.promote()
        claimed = store.cycle(WORKER, [], Demand(10)).claimed
        if not claimed:
            break
        store.cycle(WORKER, [outcome(task) for task in claimed], None)
    _look(store)
    store.sign_off(WORKER)
    for task in claim(store, worker=OTHER_WORKER):
        complete(store, task, worker=OTHER_WORKER)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("column", _columns(Task))
def test_an_odd_task_costs_only_itself(store: Store, column: str, state: str) -> None:
    for value in _values(column):
        _empty(store)
        be_alive(store)
        be_alive(store, OTHER_WORKER)
        (odd, neighbour), outcomes = STATES[state](store)
        if not _is_written(store, odd, column, value, "task"):
            continue
        _work(store, outcomes)
        assert Result.objects.filter(pk=neighbour).exists(), value
        counts = [each.objects.count() for each in (Task, Result, DeadLetter)]
        assert sum(counts) == 2, value


# -- all others ----------------------------------------------------------------------


def _finish(store: Store) -> tuple[list[str], dict[type[Model], str]]:
    """Finish four of six tasks; return all, and the key of a row of each table."""
    be_alive(store)
    ended = []
    for verdict in (Verdict.SUCCESSFUL, Verdict.FAILED):
        for task in claim_new(store, 2):
            complete(store, task, verdict, retention=0.0)
            ended.append(task.id)
    neighbour = new_worker()
    store.register(neighbour, 3600.0)
    number = str(Attempt.objects.filter(task_id=ended[2]).get().pk)
    live = insert(store, 2)
    keys = {Task: live[0], Result: ended[0], DeadLetter: ended[2], Attempt: number}
    return [*ended, *live], {**keys, Worker: neighbour.id}


def _show_all(alias: str, ids: list[str]) -> None:
    """Make all that the commands print of these tasks, and of the queue."""
    status, lines = control.status(alias), control.list_tasks(alias=alias)
    assert {line.id for line in lines} >= set(ids)
    explaining.complaints(status), rendering.status_text(status)
    rendering.list_text(lines), rendering.list_text(lines, State.FAILED)
    data = [rendering.status_data(status), rendering.list_data(lines)]
    for each in ids:
        details = control.show(each, alias)
        more = explaining.more_about(details.task, alias)
        rendering.details_text(details, more)
        data.append(rendering.details_data(details, more))
    rendering.as_json(data)


ODD_ROWS = [
    (model, column)
    for model in (Task, Result, DeadLetter, Attempt, Worker)
    for column in _columns(model)
    # Who writes the largest number there has left none for others, on MariaDB for ever.
    if (model, column) != (Attempt, "id")
]


@pytest.mark.parametrize(("model", "column"), ODD_ROWS)
def test_an_odd_row_is_shown_and_pruned_and_hides_no_other(
    store: Store, model: type[Model], column: str
) -> None:
    for value in _values(column):
        _empty(store)
        all_ids, keys = _finish(store)
        table = str(model._meta.model_name)
        if not _is_written(store, keys[model], column, value, table):
            continue
        _look(store)
        is_renamed = column == "id" and keys[model] in all_ids
        ids = [each for each in all_ids if not (is_renamed and each == keys[model])]
        _show_all(store.alias, ids)
        store.rescue()
        store.prune(older_than=-3600.0)
        left = [each.objects.count() for each in (Result, DeadLetter)]
        assert sum(left) <= (column == "finished_at"), value
        assert store.renew(WORKER, 3600.0)
        store.sign_off(WORKER)
