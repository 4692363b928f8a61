"""Rows that cannot run now are never in the way: what the hot statements read.

Beside a few READY tasks there are thousands that are scheduled, blocked, running or
finished. What is read must not depend on them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from django_jobs.models import Result, Task
from django_jobs.records import Demand, Outcome
from django_jobs.states import Verdict
from django_jobs.store import Store
from django_jobs.store.control import NEAREST
from django_jobs.store.postgresql import PLANS
from tests.store.samples import OTHER_WORKER, WORKER, claim, insert, on_both, outcome

pytestmark = on_both

#: Rows in the way, READY ones per queue, and how many are claimed at once.
ROWS, READY, BATCH = 20_000, 500, 50
#: For each task that is worked on so many rows and entries of indexes may be read;
#: SQLite counts steps of its virtual machine, and does all other work in them too.
READS_PER_TASK = {"postgresql": 20, "mysql": 20, "sqlite": 600}
TABLES = {Task._meta.db_table, Result._meta.db_table}

DEMANDS = [
    Demand(BATCH, ("b",)),
    Demand(BATCH, ("c", "a", "none")),
    Demand(BATCH, ("c", "a"), is_strict=True),
    Demand(BATCH, exclude=("a",)),
]


@pytest.fixture
def crowd(store: Store) -> Store:
    """A queue with many rows that cannot run, and statistics that know of them."""
    insert(store, ROWS // 2, delay=3600.0)
    insert(store, ROWS // 2)
    for state in ("RUNNING", "BLOCKED"):
        some = Task.objects.filter(state="READY").values_list("pk", flat=True)[
            : ROWS // 4
        ]
        Task.objects.filter(pk__in=list(some)).update(
            state=state, worker_id=OTHER_WORKER if state == "RUNNING" else None
        )
    for queue_name in ("a", "b", "c"):
        insert(store, READY, queue_name=queue_name)
    done = claim(store, 100, queues=("a", "b", "c"))
    store.cycle(WORKER, [outcome(task, retention=1e6) for task in done], None)
    analyse()
    return store


def analyse() -> None:
    tables = ", ".join(sorted(TABLES))
    words = {
        "mysql": f"ANALYZE TABLE {tables}",
        # Whose entries of indexes point to rows that changed long ago.
        "postgresql": f"VACUUM (ANALYZE) {tables}",
        "sqlite": "ANALYZE",
    }
    with connection.cursor() as cursor:
        cursor.execute(words[connection.vendor])
        if connection.vendor == "mysql":
            cursor.fetchall()


# -- plans ---------------------------------------------------------------------------


def test_no_statement_of_a_cycle_scans_a_table(crowd: Store) -> None:
    outcomes: list[Outcome] = []
    with recorded() as statements, transaction.atomic():
        for demand in DEMANDS:
            claimed, stale, _ = crowd.cycle(WORKER, outcomes, demand)
            assert (len(claimed), stale) == (BATCH, [])
            outcomes = [outcome(task) for task in claimed]
    plans = [line for sql in statements for line in explain(sql)]
    assert plans
    assert [line for line in plans if "SCAN" in line.upper()] == []


def test_the_claim_walks_along_its_index(crowd: Store) -> None:
    with recorded() as statements, transaction.atomic():
        claim(crowd, BATCH, queues=("b",))
    plans = [line for sql in statements for line in explain(sql)]
    assert any("django_jobs_task_ready" in line for line in plans)
    assert [line for line in plans if "sort" in line or "TEMP B-TREE" in line] == []


@contextmanager
def recorded() -> Iterator[list[str]]:
    """Collect the statements on our tables, with their values."""
    statements: list[str] = []
    if connection.vendor == "sqlite":
        # The hot ones go around Django's cursor.
        connection.ensure_connection()
        connection.connection.set_trace_callback(statements.append)
        yield statements
        connection.connection.set_trace_callback(None)
    else:
        with CaptureQueriesContext(connection) as queries:
            yield statements
        statements += [query["sql"] for query in queries]
    statements[:] = [sql for sql in statements if "django_jobs_" in sql]


def explain(sql: str) -> list[str]:
    """Return a line per step of a plan; one says SCAN when it reads a whole table."""
    vendor = connection.vendor
    words = {"sqlite": "EXPLAIN QUERY PLAN", "postgresql": "EXPLAIN (FORMAT JSON)"}
    with connection.cursor() as cursor:
        cursor.execute(f"{words.get(vendor, 'EXPLAIN')} {sql}")
        names = [column[0] for column in cursor.description]
        rows = cursor.fetchall()
    if vendor == "sqlite":
        # Of subqueries and constants it says SCAN too.
        lines = [row[-1] for row in rows]
        return [each for each in lines if "django_jobs" in each or "B-TREE" in each]
    if vendor == "postgresql":
        plan = rows[0][0]
        return list(
            nodes((json.loads(plan) if isinstance(plan, str) else plan)[0]["Plan"])
        )
    return [mysql_line(dict(zip(names, row, strict=True))) for row in rows]


def nodes(plan: dict[str, Any]) -> Iterator[str]:
    if (table := plan.get("Relation Name")) in TABLES:
        kind = plan["Node Type"].replace("Index Scan", "index").replace("Only Scan", "")
        if plan["Node Type"] != "ModifyTable":
            yield f"{kind} {table} {plan.get('Index Name', '')}"
    if plan["Node Type"] == "Sort" and plan.get("Parent Relationship") == "Subquery":
        yield "sort of a subquery"
    for child in plan.get("Plans", []):
        yield from nodes(child)


def mysql_line(row: dict[str, Any]) -> str:
    is_ours = str(row["table"]) in TABLES or row["table"] in ("t", "f")
    # The table that rows are inserted into says ALL, but reads none.
    is_scan = is_ours and row["type"] in ("ALL", "index") and row["rows"]
    sort = "filesort" if is_ours and "filesort" in str(row["Extra"]) else ""
    return f"{'SCAN' if is_scan else row['type']} {row['table']} {row['key']} {sort}"


# -- reads ---------------------------------------------------------------------------


def test_a_claim_reads_what_it_claims(crowd: Store) -> None:
    with transaction.atomic():
        for demand in DEMANDS:
            reads = count_reads(lambda: crowd.cycle(WORKER, [], demand))  # noqa: B023
            arms = max(2, len(demand.queues))
            assert reads <= READS_PER_TASK[connection.vendor] * BATCH * arms, demand


def test_a_completion_reads_what_it_completes(crowd: Store) -> None:
    for verdict in (Verdict.SUCCESSFUL, Verdict.RETRY, Verdict.FAILED):
        tasks = claim(crowd, BATCH, queues=("a", "b", "c"))
        outcomes = [outcome(task, verdict) for task in tasks]
        with transaction.atomic():
            reads = count_reads(lambda: crowd.cycle(WORKER, outcomes, None))  # noqa: B023
        assert reads <= READS_PER_TASK[connection.vendor] * BATCH * 3, verdict


def test_upkeep_reads_what_it_changes(crowd: Store) -> None:
    due = Task.objects.filter(state="SCHEDULED").values_list("pk", flat=True)[:BATCH]
    past = crowd.now() - timedelta(hours=1)
    Task.objects.filter(pk__in=list(due)).update(run_after=past)
    Result.objects.filter(
        pk__in=list(Result.objects.values_list("pk", flat=True)[:BATCH])
    ).update(prune_at=past)
    works: list[Callable[[], Any]] = [
        crowd.next_due,
        crowd.promote,
        lambda: crowd.adopt(7.5, lambda queue, name: True),
        crowd.prune,
        lambda: crowd.revoke_requests(WORKER),
    ]
    with transaction.atomic():
        reads = [count_reads(work) for work in works]
    most = READS_PER_TASK[connection.vendor] * BATCH
    assert [read for read in reads if read > most] == []


def test_a_look_for_strays_reads_no_more_than_the_nearest(crowd: Store) -> None:
    # Ten times as many are due within these two hours.
    with recorded() as statements, transaction.atomic():
        reads = count_reads(lambda: crowd.adopt(7200.0, lambda queue, name: True))
    assert reads <= READS_PER_TASK[connection.vendor] // 5 * NEAREST
    plans = [line for sql in statements for line in explain(sql)]
    assert any("django_jobs_task_scheduled" in line for line in plans)
    assert [line for line in plans if "SCAN django_jobs" in line.upper()] == []


def count_reads(work: Callable[[], Any]) -> int:
    """Return how many rows and entries of indexes some work reads."""
    if connection.vendor == "sqlite":
        return count_steps(work)
    before = reads_so_far()
    work()
    return reads_so_far() - before


def reads_so_far() -> int:
    if connection.vendor == "mysql":
        query = "SHOW SESSION STATUS LIKE 'Handler_read%%'"
    else:
        # Of the current transaction, entries of indexes included.
        query = """
            SELECT relname, pg_stat_get_xact_tuples_returned(oid)
                + pg_stat_get_xact_tuples_fetched(oid)
            FROM pg_class WHERE relname LIKE 'django\\_jobs%%'
        """
    with connection.cursor() as cursor:
        cursor.execute(query, [])
        return sum(int(row[1]) for row in cursor.fetchall())


def count_steps(work: Callable[[], Any]) -> int:
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 100
        return 0

    connection.connection.set_progress_handler(count, 100)
    try:
        work()
    finally:
        connection.connection.set_progress_handler(None, 0)
    return steps


# -- plans that were made for another time ---------------------------------------------


def test_a_plan_made_for_an_empty_queue_serves_a_full_one(
    store: Store, requires: Callable[..., None]
) -> None:
    requires("postgresql")
    if connection.pg_version < 150000:
        pytest.skip("statistics cannot be flushed before PostgreSQL 15")
    with connection.cursor() as cursor:
        cursor.execute(f"VACUUM ANALYZE {Task._meta.db_table}")
    for demand in DEMANDS * 8:  # from the sixth time on the server keeps the plan
        (task,) = claim_one(store)
        store.cycle(WORKER, [outcome(task)], demand)
    insert(store, ROWS)
    insert(store, ROWS // 4, queue_name="b")
    scans = sequential_reads()
    for demand in DEMANDS:
        tasks = store.cycle(WORKER, [], demand).claimed
        store.cycle(WORKER, [outcome(task) for task in tasks], None)
    assert sequential_reads() == scans


def test_an_empty_queue_is_planned_as_a_full_one(
    store: Store, requires: Callable[..., None]
) -> None:
    requires("postgresql")
    tasks = [task for _ in range(20) for task in claim_one(store)]
    with connection.cursor() as cursor:
        cursor.execute(f"VACUUM ANALYZE {Task._meta.db_table}")
    with transaction.atomic(), recorded() as statements:
        store.cycle(WORKER, [outcome(task) for task in tasks], DEMANDS[0])
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(PLANS)
        plans = [line for sql in statements for line in explain(sql)]
    indexes = {line.split()[-1] for line in plans if line.startswith("index")}
    assert indexes == {"django_jobs_task_pkey", "django_jobs_task_ready"}
    assert [line for line in plans if "Scan" in line] == []


def claim_one(store: Store) -> list[Any]:
    insert(store, queue_name="q")
    return claim(store, 1, queues=("q",))


def sequential_reads() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_stat_force_next_flush()")
        cursor.execute(
            "SELECT seq_tup_read FROM pg_stat_user_tables WHERE relname = %s",
            [Task._meta.db_table],
        )
        return int(cursor.fetchone()[0])
