"""Rows of tasks written by hand: each costs only itself, the worker goes on."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any, NamedTuple
from uuid import UUID

import pytest
from django.db import connection

from django_jobs.models import DeadLetter, Result, Task
from django_jobs.states import Reason, State
from django_jobs.store import get_store
from tests.processes import tasks
from tests.processes.conftest import StartWorker
from tests.processes.harness import WorkerProcess, lines, wait_for

pytestmark = pytest.mark.django_db(transaction=True)

RUNS, EXPIRES, STAYS = "SUCCESSFUL", "EXPIRED", "stays"
#: Nobody here can tell why a stored time would be so far away.
FAR = ("1000-01-01 00:00:00", "9999-12-31 23:59:59")
#: The next one: SQLite takes it for a day in March, Python for none.
DAY_THAT_IS_NOT = f"{date.today().year + (date.today().month > 2)}-02-30 10:00:00"
#: Column -> values, by what becomes of their rows.
FATES: dict[str, dict[str, Sequence[Any]]] = {
    RUNS: {
        # Nobody reads it there.
        "metadata": ["{", "[]"],
        "progress": ["["],
        "queue_name": ["", "odd\nqueue", "q'%s\""],
        "time_limit": [1e308],
        **dict.fromkeys(("order_key", "max_attempts", "crashes"), (-32768, 32767)),
        **dict.fromkeys(("attempt", "lease"), (-2147483648, 2147483647)),
        **dict.fromkeys(("run_after", "enqueued_at", "started_at"), FAR),
        **dict.fromkeys(("last_attempted_at", "unknown_since"), FAR),
        "expires": FAR[1:],
        # Of no worker: it is taken back.
        "state": ["RUNNING"],
    },
    EXPIRES: {"expires": FAR[:1]},
    Reason.CORRUPT: {
        "args": [
            *("", "{", "null", "5", '"ab"', '{"left": 1, "right": 2}', "NaN"),
            *('[{"$later": 1}, 2]', "[" * 100_000, f"[{'1' * 5000}, 2]"),
        ],
        "kwargs": ["[]", "[1]", '"x"', "null", '{"a": 1'],
        "headers": ["[]", "{", '"x"', "null"],
    },
    # They may be of a release that is not here yet: see the log for them.
    Reason.ATTEMPTS: {"kwargs": ['{"no_such": 1}']},
    STAYS: {
        "name": ["", "x" * 200, "os.system", "a\nb", "tests.processes.tasks.add.func"],
        "state": ["ODD", "", "SUCCESSFUL"],
    },
}
#: What a column takes on one of the databases only.
ONLY_THERE: dict[str, dict[str, dict[str, Sequence[Any]]]] = {
    "postgresql": {
        RUNS: {
            "run_after": ["infinity", "-infinity", "0044-03-15 12:00 BC"],
            "time_limit": ["NaN", "Infinity"],
        },
        EXPIRES: {"expires": ["-infinity"]},
    },
    "mysql": {},
    "sqlite": {
        Reason.CORRUPT: {
            **dict.fromkeys(("order_key", "crashes", "time_limit"), ("abc", b"\0\xff")),
            **dict.fromkeys(("name", "args", "headers"), (b"\0\xff",)),
            **dict.fromkeys(("run_after", "worker_id"), ("yesterday", 5, b"\0\xff")),
        },
        RUNS: {"expires": ["yesterday"]},
    },
}


class Row(NamedTuple):
    """A task whose row was changed by hand."""

    id: str
    column: str
    value: Any
    fate: str

    def __str__(self) -> str:
        return f"{self.column} = {self.value!r:.60} {self.fate}"


def _written_by_hand(column: str, value: Any, fate: str) -> Row:
    row = Row(tasks.add.using(max_attempts=1).enqueue(1, 2).id, column, value, fate)
    _change(row.id, column, value)
    return row


def _change(task_id: str, column: str, value: Any) -> None:
    key = get_store("default").to_id(task_id)  # type: ignore[attr-defined]
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE django_jobs_task SET {column} = %s WHERE id = %s", [value, key]
        )
        assert cursor.rowcount == 1


def _fates() -> dict[str, str]:
    """Return what became of tasks, by id: the state, the reason, or that it stays."""
    results = Result.objects.values_list("pk", "state")
    letters = DeadLetter.objects.values_list("pk", "reason")
    stay = [(pk, STAYS) for pk in Task.objects.values_list("pk", flat=True)]
    return {str(pk): fate for pk, fate in [*results, *letters, *stay]}


def _assert_alive(worker: WorkerProcess) -> None:
    assert tasks.add.enqueue(1, 1).get(timeout=20) == 2
    assert worker.process.poll() is None
    assert "event=uncaught" not in worker.output()


def test_a_row_written_by_hand_costs_only_itself(start_worker: StartWorker) -> None:
    rows = [
        _written_by_hand(column, value, fate)
        for fates in (FATES, ONLY_THERE[connection.vendor])
        for fate, columns in fates.items()
        for column, values in columns.items()
        for value in values
    ]
    neighbours = [tasks.add.enqueue(number, 0) for number in range(len(rows))]
    worker = start_worker("--processes", "1", "--threads", "1")
    for number, each in enumerate(neighbours):
        assert each.get(timeout=40) == number
    end = {row.id for row in rows if row.fate != STAYS}
    wait_for(lambda: not Task.objects.filter(pk__in=end), words="the bad rows are gone")
    _assert_alive(worker)
    fates = _fates()
    wrong = [f"{row}: {fates[row.id]}" for row in rows if fates[row.id] != row.fate]
    assert wrong == []
    # One look says all that there is to say of each.
    assert all(DeadLetter.objects.values_list("message", flat=True))


def test_strange_times_of_what_is_scheduled_delay_nothing_else(
    start_worker: StartWorker,
) -> None:
    strange = {
        "postgresql": ["-infinity", "infinity"],
        "mysql": FAR,  # a day 0 depends on the mode of the session
        "sqlite": ["", "yesterday", DAY_THAT_IS_NOT],
    }
    for value in strange[connection.vendor]:
        _change(tasks.noop.using(run_after=3600).enqueue().id, "run_after", value)
    worker = start_worker("--processes", "1")
    assert tasks.add.using(run_after=0.5).enqueue(1, 2).get(timeout=20) == 3
    _assert_alive(worker)
    assert "event=database_failing" not in worker.output()


def test_an_id_with_hyphens_costs_only_its_row(start_worker: StartWorker) -> None:
    if connection.vendor != "sqlite":
        pytest.skip("only SQLite knows no other form of an id, and takes it")
    odd = tasks.add.enqueue(1, 2)
    _change(odd.id, "id", odd.id)
    worker = start_worker("--processes", "1")
    _assert_alive(worker)
    assert DeadLetter.objects.get().pk == UUID(odd.id)
    assert "event=database_contended" not in worker.output()


@pytest.mark.parametrize("end", [Result, DeadLetter])
def test_a_task_that_has_ended_before_ends_no_second_time(
    start_worker: StartWorker, end: type[Result] | type[DeadLetter]
) -> None:
    worker = start_worker("--processes", "1")
    ended = tasks.add.enqueue(1, 2) if end is Result else tasks.reject.enqueue()
    before = wait_for(lambda: end.objects.values().first())
    again = tasks.add.using(run_after=3600).enqueue(3, 4)
    _change(again.id, "id", get_store("default").to_id(ended.id))  # type: ignore[attr-defined]
    Task.objects.update(state=State.READY)
    _assert_alive(worker)
    wait_for(lambda: not Task.objects.exists())
    # The first end stands.
    assert end.objects.filter(pk=ended.id).values().get() == before


def test_metadata_that_cannot_be_read_fails_who_reads_it(
    start_worker: StartWorker, audit: Any
) -> None:
    result = tasks.report_progress.using(max_attempts=1).enqueue(str(audit))
    _change(result.id, "metadata", '["no object"]')
    worker = start_worker("--processes", "1")
    _assert_alive(worker)
    wait_for(DeadLetter.objects.exists)
    assert "metadata holds no JSON object" in DeadLetter.objects.get().message
    assert lines(audit) == []
