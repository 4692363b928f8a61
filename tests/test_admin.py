"""The admin shows every table, changes nothing, and stays cheap on large tables."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext, override_settings
from django.urls import reverse

from django_jobs.admin import history, lists
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
from tests import rows
from tests.admin_pages import body, list_page, page

pytestmark = pytest.mark.django_db

MODELS = [
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
]
LARGE = [Task, Result, DeadLetter, Attempt]
NOT_IN_INDEX = [Rollup, Operation, Maintenance]
UNUSED = [Rollup, Operation, Schedule, Queue]
HOSTILE = "<script>alert(1)</script> & \"'"
#: Session, user, permissions, choices of the filters, count, rows, what rows need.
MOST_QUERIES = 12


@pytest.fixture
def superuser() -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("root"))
    return client


@pytest.fixture
def viewer() -> Client:
    user = User.objects.create_user("viewer", is_staff=True)
    user.user_permissions.set(
        Permission.objects.filter(
            content_type__app_label="django_jobs", codename__startswith="view_"
        )
    )
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture(params=["superuser", "viewer"])
def client_of(request: pytest.FixtureRequest) -> Client:
    client: Client = request.getfixturevalue(request.param)
    return client


# -- every page ---------------------------------------------------------------------


def test_the_index_leaves_out_what_is_the_queue_s_own_affair(
    client_of: Client,
) -> None:
    text = body(client_of, reverse("admin:app_list", args=["django_jobs"]))
    for model in MODELS:
        assert (list_page(model) in text) is (model not in NOT_IN_INDEX)


@pytest.mark.parametrize("model", MODELS)
def test_a_table_that_is_not_used_yet_says_so(superuser: Client, model: Any) -> None:
    text = body(superuser, list_page(model))
    assert ("this version neither writes nor reads it" in text) is (model in UNUSED)


@pytest.mark.parametrize("model", MODELS)
def test_an_empty_list_is_shown(superuser: Client, model: Any) -> None:
    assert str(model._meta.verbose_name_plural) in body(superuser, list_page(model))


def test_every_list_and_every_row_is_shown(client_of: Client) -> None:
    for row in rows.one_of_each():
        assert page(row) in body(client_of, list_page(type(row)))
        assert str(row).split()[0] in body(client_of, page(row))


def test_pages_have_nothing_inline_that_a_strict_policy_forbids(
    superuser: Client,
) -> None:
    for row in rows.one_of_each():
        for address in (list_page(type(row)), page(row)):
            text = body(superuser, address)
            assert not re.search(r"<script(?![^>]*\b(src|type)=)", text)
            assert not re.search(r"<[^>]+\s(style|on\w+)=", text)
            assert "<style" not in text


def test_a_person_without_the_permission_sees_nothing() -> None:
    client = Client()
    client.force_login(User.objects.create_user("clerk", is_staff=True))
    for row in rows.one_of_each():
        assert client.get(list_page(type(row))).status_code == 403
        assert client.get(page(row)).status_code == 403
    assert client.get(list_page(Task, q=rows.key(2))).status_code == 403


# -- nothing is changed -------------------------------------------------------------


def test_nobody_adds_changes_or_deletes(client_of: Client) -> None:
    for row in rows.one_of_each():
        name = f"admin:django_jobs_{row._meta.model_name}"
        add, delete = reverse(f"{name}_add"), reverse(f"{name}_delete", args=[row.pk])
        for address in (add, delete, page(row), list_page(type(row))):
            assert client_of.post(address, {"post": "yes"}).status_code == 403
        assert client_of.get(add).status_code == 403
        assert client_of.get(delete).status_code == 403
        assert type(row)._default_manager.filter(pk=row.pk).exists()


@pytest.mark.parametrize("model", MODELS)
def test_a_list_offers_no_action_and_a_forged_one_is_refused(
    superuser: Client, model: Any
) -> None:
    rows.one_of_each()
    assert 'name="action"' not in body(superuser, list_page(model))
    keys = [str(key) for key in model._default_manager.values_list("pk", flat=True)]
    form = {"action": "delete_selected", "_selected_action": keys, "index": "0"}
    assert superuser.post(list_page(model), form).status_code == 403
    assert model._default_manager.count() == len(keys)


@pytest.mark.parametrize("model", MODELS)
def test_no_page_offers_to_add_change_or_delete(client_of: Client, model: Any) -> None:
    row = next(each for each in rows.one_of_each() if type(each) is model)
    index = reverse("admin:app_list", args=["django_jobs"])
    for address in (index, list_page(model), page(row)):
        text = body(client_of, address)
        assert not re.search(r'href="[^"]*/django_jobs/[^"]*(add|delete)/', text)
        assert not re.search(r'type="submit"[^>]*name="_', text)
        assert 'value="delete_selected"' not in text


def test_a_row_has_no_button_that_saves(superuser: Client) -> None:
    for row in rows.one_of_each():
        text = body(superuser, page(row))
        assert 'type="submit" value="Save' not in text
        assert 'name="_save"' not in text


# -- cheap on large tables ----------------------------------------------------------


def queries_of(client: Client, address: str) -> list[str]:
    body(client, address)  # the process learns what it keeps: types of contents
    with CaptureQueriesContext(
        connection,
    ) as captured:
        body(client, address)
    return [each["sql"] for each in captured.captured_queries]


@pytest.mark.parametrize("model", MODELS)
def test_a_list_takes_few_queries_however_many_rows(
    superuser: Client, model: Any
) -> None:
    rows.one_of_each()
    few = len(queries_of(superuser, list_page(model)))
    for number in range(10, 40):
        rows.task(number)
        rows.result(100 + number)
        rows.dead_letter(200 + number)
        rows.attempt(number)
        rows.worker(id=rows.key(300 + number))
        Queue.objects.create(name=f"queue {number}")
    assert len(queries_of(superuser, list_page(model))) <= few <= MOST_QUERIES


@pytest.mark.parametrize("model", LARGE)
def test_a_list_loads_no_payload(superuser: Client, model: Any) -> None:
    rows.one_of_each()
    selects = queries_of(superuser, list_page(model))
    listing = [each for each in selects if model._meta.db_table in each]
    assert listing
    for sql in listing:
        columns = sql.partition(" FROM ")[0]
        assert not re.search(rf"\b({'|'.join(rows.PAYLOADS)})\b", columns)


@pytest.mark.parametrize("number", range(1, 4))
def test_a_task_shows_its_attempts_with_one_query(
    superuser: Client, number: int
) -> None:
    row = rows.one_of_each()[number - 1]
    rows.attempt(number)
    few = len(queries_of(superuser, page(row)))
    for more in range(2, 10):
        rows.attempt(number, more)
    assert len(queries_of(superuser, page(row))) == few <= MOST_QUERIES


def test_of_very_many_attempts_the_newest_are_shown(
    superuser: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "MOST_SHOWN", 2)
    row = rows.dead_letter()
    for number in range(1, 5):
        rows.attempt(1, number)
    text = body(superuser, page(row))
    assert re.findall(r"Attempt (\d)", text) == ["4", "3"]
    assert list_page(Attempt, q=row.pk) in text
    assert "4 attempts" in body(superuser, list_page(Attempt, q=row.pk))


def test_a_long_list_is_counted_up_to_a_ceiling(
    superuser: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lists, "MOST_COUNTED", 4)
    monkeypatch.setattr(lists.LightChangeList, "most_counted", 4)
    for number in range(4):
        rows.result(number)
    assert "There are more" not in body(superuser, list_page(Result))
    rows.result(4)
    assert "There are more than 4" in body(superuser, list_page(Result))
    counts = [
        sql
        for sql in queries_of(superuser, list_page(Result))
        if "COUNT(" in sql and Result._meta.db_table in sql
    ]
    assert len(counts) == 1
    assert "LIMIT 5" in counts[0]


def test_a_filter_without_an_index_looks_at_the_newest_rows(
    superuser: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lists, "WINDOW", 3)
    monkeypatch.setattr(lists.LightChangeList, "window", 3)
    rows.result(1, queue_name="old")
    for number in range(2, 6):
        rows.result(number)
    text = body(superuser, list_page(Result, queue="old"))
    assert "0 results" in text
    assert "newest 3 only" in text
    assert "newest" not in body(superuser, list_page(Result))


def test_a_filter_with_an_index_looks_at_all_rows(
    superuser: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lists, "WINDOW", 1)
    running = rows.task(1, state="RUNNING")
    for number in range(2, 6):
        rows.task(number)
    assert page(running) in body(superuser, list_page(Task, state="RUNNING"))
    assert "newest 1 only" not in body(superuser, list_page(Task, state="RUNNING"))


@pytest.mark.parametrize("state", ["BLOCKED", "made up"])
def test_states_that_no_index_leads_are_sought_in_the_newest_rows(
    superuser: Client, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    monkeypatch.setattr(lists.LightChangeList, "window", 1)
    monkeypatch.setattr(lists, "WINDOW", 1)
    for number in range(3):
        rows.task(number)
    assert "newest 1 only" in body(superuser, list_page(Task, state=state))


@pytest.mark.parametrize(
    ("model", "query"),
    [
        (Task, {"state": "RUNNING"}),
        (Task, {"queue": "mail"}),
        (Task, {"task": "shop.tasks.send"}),
        (Result, {"state": "SUCCESSFUL"}),
        (DeadLetter, {"reason": "attempts used up"}),
        (Attempt, {"verdict": "retry"}),
    ],
)
def test_a_filter_keeps_the_rows_of_its_value(
    superuser: Client, model: Any, query: dict[str, str]
) -> None:
    row = next(each for each in rows.one_of_each() if type(each) is model)
    assert page(row) in body(superuser, list_page(model, **query))
    other = dict.fromkeys(query, "something else")
    assert page(row) not in body(superuser, list_page(model, **other))


@pytest.mark.parametrize("model", LARGE)
@pytest.mark.parametrize("lookup", ["args__contains", "id__gt", "name__icontains"])
def test_a_lookup_that_a_url_makes_up_is_refused(
    superuser: Client, model: Any, lookup: str
) -> None:
    assert superuser.get(list_page(model, **{lookup: "x"})).status_code == 400


@pytest.mark.parametrize(
    ("model", "make"),
    [(Task, rows.task), (Result, rows.result), (DeadLetter, rows.dead_letter)],
)
def test_every_queue_that_has_rows_is_offered(
    superuser: Client, model: Any, make: Any
) -> None:
    make(1, queue_name="low", **({"state": "SCHEDULED"} if model is Task else {}))
    make(2, queue_name="far")
    with override_settings(DJANGO_JOBS={"QUEUES": ["default", "declared"]}):
        text = body(superuser, list_page(model))
    for name in ("default", "declared", "low", "far"):
        assert f"?queue={name}" in text


def test_queues_are_sought_in_the_rows_in_which_a_filter_searches(
    superuser: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lists, "WINDOW", 3)
    for number, name in enumerate(["old", "middle", "new", "new", "new"]):
        rows.result(number, queue_name=name)
    text = body(superuser, list_page(Result))
    assert "?queue=new" in text
    assert "?queue=old" not in text
    for sql in queries_of(superuser, list_page(Result)):
        assert "DISTINCT" not in sql or "id" in sql.partition(" WHERE ")[2]


# -- finding a task -----------------------------------------------------------------


@pytest.mark.parametrize("model", [Task, Result, DeadLetter])
def test_the_id_of_a_task_opens_its_page_from_any_list(
    superuser: Client, model: Any
) -> None:
    for row in rows.one_of_each()[:3]:
        response = superuser.get(list_page(model, q=f" {row.pk} "))
        assert (response.status_code, response["Location"]) == (302, page(row))


def test_a_page_follows_its_task_to_another_table(superuser: Client) -> None:
    old = page(rows.task())
    Task.objects.all().delete()
    result = rows.result()
    assert superuser.get(old)["Location"] == page(result)
    Result.objects.all().delete()
    assert superuser.get(old)["Location"] == reverse("admin:index")


@pytest.mark.parametrize("words", ["mail", "%", rows.key(999), "0" * 500])
def test_a_search_for_anything_else_finds_nothing(
    superuser: Client, words: str
) -> None:
    rows.one_of_each()
    for model in LARGE:
        assert page(model.objects.get()) not in body(
            superuser, list_page(model, q=words)
        )


def test_attempts_are_found_by_their_task_and_lead_to_it(superuser: Client) -> None:
    rows.dead_letter(3)
    mine, other = rows.attempt(3), rows.attempt(4)
    text = body(superuser, list_page(Attempt, q=rows.key(3)))
    assert page(mine) in text
    assert page(other) not in text
    assert reverse("admin:django_jobs_task_change", args=[rows.key(3)]) in text
    assert "shop.tasks.send" in text


def test_attempts_are_hidden_from_who_may_not_view_them(viewer: Client) -> None:
    row = rows.dead_letter()
    rows.attempt(1, log="the log of the attempt")
    assert "the log of the attempt" in body(viewer, page(row))
    user = User.objects.get(username="viewer")
    user.user_permissions.remove(Permission.objects.get(codename="view_attempt"))
    assert "the log of the attempt" not in body(viewer, page(row))
