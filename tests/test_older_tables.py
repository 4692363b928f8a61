"""New code before its migration: whatever is asked answers, or says to migrate."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import DatabaseError, connection, transaction
from django.test import Client, RequestFactory
from django.test.utils import CaptureQueriesContext

from django_jobs import checks, control, fetch_result
from django_jobs.admin.unmigrated import explained
from django_jobs.context import TaskContext
from django_jobs.exceptions import ResultError, SetupError
from django_jobs.management.commands import jobworker
from django_jobs.models import (
    Attempt,
    DeadLetter,
    Maintenance,
    Operation,
    Queue,
    Result,
    Rollup,
    Schedule,
    Task,
    Worker,
)
from django_jobs.store import get_store
from django_jobs.store.errors import is_not_migrated
from django_jobs.store.tables import lacking, what_is_lacking
from tests import rows
from tests.admin_pages import list_page, page
from tests.sampleapp import tasks
from tests.store.samples import WORKER, claim, insert
from tests.tables import change, without, without_table

pytestmark = pytest.mark.django_db(transaction=True)

MODELS = (
    Task,
    Result,
    DeadLetter,
    Attempt,
    Worker,
    Queue,
    Schedule,
    Rollup,
    Operation,
    Maintenance,
)
WHAT_TO_DO = "run manage.py migrate --database default"
JOBS = (
    "status",
    "list",
    "list --state failed",
    f"show {rows.key(1)}",
    f"show {rows.key(3)}",
    "retry --error KeyError --dry-run",
    f"revoke {rows.key(2)}",
    "prune --older-than 7d --dry-run",
)
CALLS: dict[str, Callable[[], Any]] = {
    "enqueue": lambda: tasks.add.enqueue(1),
    "get() of a task": lambda: fetch_result(rows.key(1)).get(timeout=0),
    "get() of a result": lambda: fetch_result(rows.key(2)).get(timeout=0),
    "get() of a dead letter": lambda: fetch_result(rows.key(3)).get(timeout=0),
    "status()": control.status,
    "show()": lambda: control.show(rows.key(3)),
    "list_tasks()": control.list_tasks,
    "find_dead_letters()": lambda: control.find_dead_letters(error="KeyError"),
    "revoke()": lambda: control.revoke([rows.key(2)]),
    "requeue()": lambda: requeue_and_undo(rows.key(3)),
    "prune()": lambda: control.prune(1e8),
    "count_prunable()": control.count_prunable,
}

#: Returns what was said, empty when there was nothing to complain of.
Ask = Callable[[], str]


@pytest.fixture
def client() -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("root"))
    return client


def refusal_of_the_worker() -> str:
    try:
        jobworker._refuse_without_tables("default")
    except CommandError as error:
        return str(error)
    return ""


def message_of_the_check() -> str:
    found = checks.check_databases(databases=["default"])
    told = " ".join(f"{each.id}: {each.msg} {each.hint}" for each in found)
    return told.replace("Run manage.py", "run manage.py")


def jobs(words: str) -> Ask:
    def ask() -> str:
        quiet = {"stdout": io.StringIO(), "stderr": io.StringIO()}
        try:
            call_command("jobs", *words.split(), **quiet)
        except CommandError as error:
            return "" if "not revoked" in str(error) else str(error)
        return ""

    return ask


def code(call: Callable[[], Any]) -> Ask:
    def ask() -> str:
        try:
            call()
        except ResultError:
            return ""
        except SetupError as error:
            return str(error)
        return ""

    return ask


def requeue_and_undo(key: str) -> None:
    with transaction.atomic():
        assert control.requeue([key]) == [key]
        transaction.set_rollback(True)


def visit(client: Client, address: str) -> Ask:
    def ask() -> str:
        response = client.get(address)
        if response.status_code == 200:
            return ""
        text = response.content.decode()
        return text if response.status_code == 503 else f"{response.status_code} {text}"

    return ask


def asks_of(client: Client) -> dict[str, Ask]:
    """Return all that people and programs may ask, by name."""
    created = rows.one_of_each()
    addresses = []
    for row in created:
        addresses += [list_page(type(row)), page(row)]
    return {
        **{name: code(call) for name, call in CALLS.items()},
        **{f"jobs {words}": jobs(words) for words in JOBS},
        **{address: visit(client, address) for address in addresses},
    }


def columns_of(model: Any) -> list[str]:
    fields = model._meta.local_concrete_fields
    return [field.column for field in fields if not field.primary_key]


def used_by(ask: Ask) -> dict[Any, str]:
    """Return a column of each table without which there is no answer."""
    with CaptureQueriesContext(connection) as statements:
        assert ask() == ""
    return {
        model: column
        for statement in statements
        for model in MODELS
        for column in columns_of(model)
        if is_named(statement["sql"], model._meta.db_table, column)
    }


def is_named(sql: str, table: str, column: str) -> bool:
    """Is a column of a table named in a statement? Of its tables it has the first."""
    first = re.search(r"django_jobs_\w+", sql)
    is_first = first is not None and first.group() == table
    return is_first and re.search(rf"\b{column}\b", sql) is not None


def test_whatever_needs_a_missing_column_says_what_to_do(client: Client) -> None:
    asks = asks_of(client)
    needed_by: dict[tuple[Any, str], list[str]] = {}
    for name, ask in asks.items():
        for need in used_by(ask).items():
            needed_by.setdefault(need, []).append(name)
    assert {name for names in needed_by.values() for name in names} == set(asks)
    assert {model for model, _ in needed_by} == set(MODELS)
    complaints = []
    for (model, column), names in needed_by.items():
        with without(model, column):
            said = {name: answer(asks[name]) for name in names}
        complaints += [
            f"{name} without {model.__name__}.{column}: {words}"
            for name, words in said.items()
            if WHAT_TO_DO not in words
        ]
    assert complaints == []
    assert [name for name, ask in asks.items() if ask()] == []


def answer(ask: Ask) -> str:
    try:
        return ask()
    except Exception as error:
        return f"{type(error).__name__}: {error}"


@pytest.mark.parametrize("model", MODELS)
def test_each_column_that_is_missing_is_found(model: Any) -> None:
    table, key = model._meta.db_table, model._meta.pk.column
    missing = [f"{table}.{column}" for column in columns_of(model)]
    with without_table(model), connection.cursor() as cursor:
        cursor.execute(f"CREATE TABLE {table} AS SELECT {key} FROM {table}_away")
        try:
            assert lacking(connection) == missing
        finally:
            cursor.execute(f"DROP TABLE {table}")
    assert lacking(connection) == []


def test_a_worker_does_not_start_and_the_check_warns(client: Client) -> None:
    with without(Task, "progress"), without(Worker, "boot"), without(Queue, "name"):
        told = refusal_of_the_worker(), message_of_the_check()
    missing = "django_jobs_worker.boot, django_jobs_queue.name"
    older = f"older than this code (no django_jobs_task.progress, {missing})"
    assert all(older in each and WHAT_TO_DO in each for each in told)
    assert told[1].startswith("django_jobs.W013")
    assert refusal_of_the_worker() == message_of_the_check() == ""


def test_what_is_asked_of_a_missing_column_says_its_name(client: Client) -> None:
    rows.one_of_each()
    with without(Task, "run_after"):
        asks = [code(CALLS["enqueue"]), jobs("status"), visit(client, list_page(Task))]
        assert all("run_after" in ask() for ask in asks)
        with pytest.raises(SetupError, match=WHAT_TO_DO):
            fetch_result(rows.key(1))


def test_a_missing_table_that_only_the_new_code_has_is_told() -> None:
    with without_table(Rollup):
        told = refusal_of_the_worker()
        assert f"older than this code (no {Rollup._meta.db_table})" in told
        assert message_of_the_check().startswith("django_jobs.W013")
        assert code(CALLS["enqueue"])() == ""  # which needs no such table


def test_without_any_table_none_is_named(client: Client) -> None:
    with without_table(Task):
        told = refusal_of_the_worker()
        assert (
            told == f"the tables of django_jobs are missing on 'default': {WHAT_TO_DO}"
        )
        assert visit(client, list_page(Task))().lower() == f"{told}.\n"


def test_only_the_first_of_many_columns_are_named() -> None:
    words = what_is_lacking(["a.a", "a.b", "a.c", "a.d", "b"])
    assert words.endswith("older than this code (no a.a, a.b, a.c and 2 more)")


def test_an_index_that_is_missing_is_a_matter_of_migrations(
    requires: Callable[..., None],
) -> None:
    requires("mysql")
    name, table = "django_jobs_task_ready", Task._meta.db_table
    store = get_store()
    insert(store)
    # Not with it as its beginning, which is as good as the whole name there.
    change(table, f"RENAME INDEX {name} TO away_{name}")
    try:
        with pytest.raises(DatabaseError) as caught:
            claim(store)
    finally:
        change(table, f"RENAME INDEX away_{name} TO {name}")
    assert is_not_migrated(caught.value)
    assert len(claim(store)) == 1


def test_a_page_explains_also_in_the_transaction_of_its_request() -> None:
    request = RequestFactory().get("/")
    with without(Task, "state"), transaction.atomic():
        response = explained(lambda request: list(Task.objects.all()))(request)
        assert response.status_code == 503
        assert WHAT_TO_DO in response.content.decode()
        transaction.set_rollback(True)


def test_a_page_explains_nothing_that_is_not_about_our_tables() -> None:
    def view(request: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM never_made")

    with pytest.raises(DatabaseError, match="never_made"):
        explained(view)(RequestFactory().get("/"))


def test_progress_that_cannot_be_written_says_what_to_do() -> None:
    store = get_store()
    insert(store)
    (claimed,) = claim(store)
    with without(Task, "progress"), pytest.raises(SetupError, match=WHAT_TO_DO):
        TaskContext(claimed, WORKER, None, "default").progress(1)
