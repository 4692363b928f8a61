"""Values in the admin: escaped, masked, shortened, in words."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from django_jobs import control
from django_jobs.admin.rendering import moment
from django_jobs.models import Attempt, DeadLetter, Result, Schedule, Task, Worker
from tests import rows
from tests.admin_pages import body, list_page, page
from tests.sampleapp import tasks

pytestmark = pytest.mark.django_db

HOSTILE = "<script>alert(1)</script> & \"'"
LONG = "warehouse.tasks." + "recalculate_the_forecasts_" * 6


@pytest.fixture
def superuser() -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("root"))
    return client


@pytest.mark.parametrize("model", [Task, Result, DeadLetter])
def test_hostile_values_are_escaped(superuser: Client, model: Any) -> None:
    make = {Task: rows.task, Result: rows.result, DeadLetter: rows.dead_letter}[model]
    texts = {
        Task: {"progress": json.dumps({"current": 1, "total": 2, "message": HOSTILE})},
        Result: {"return_value": json.dumps(HOSTILE), "log": HOSTILE},
        DeadLetter: {"message": HOSTILE, "traceback": HOSTILE},
    }
    row = make(
        name=HOSTILE,
        queue_name=HOSTILE,
        summary=HOSTILE,
        args=json.dumps([HOSTILE]),
        kwargs=json.dumps({HOSTILE: HOSTILE}),
        metadata=json.dumps({"a": HOSTILE}),
        **texts[model],
    )
    rows.attempt(
        1, message=HOSTILE, traceback=HOSTILE, log=HOSTILE, worker_name=HOSTILE
    )
    for address in (list_page(model), page(row), list_page(Attempt)):
        text = body(superuser, address)
        assert "<script>alert" not in text
        assert "&lt;script&gt;alert" in text


@pytest.mark.parametrize(
    "value",
    [
        '["\\ud800 \\u0000"]',
        "not JSON",
        "[1e999, 12345678901234567890123456789012345678901234567890]",
        "[" * 5000 + "]" * 5000,
        json.dumps(["x" * 1_000_000]),
        "",
    ],
    ids=["surrogate", "no JSON", "numbers", "deep", "megabyte", "empty"],
)
def test_values_of_any_kind_are_shown(superuser: Client, value: str) -> None:
    row = rows.result(args=value, kwargs=value, return_value=value, metadata=value)
    assert len(body(superuser, page(row))) < 1_000_000


def test_json_is_shown_over_several_lines_with_exact_numbers(superuser: Client) -> None:
    row = rows.result(return_value='{"big": 123456789012345678901234567890}')
    assert "{\n  &quot;big&quot;: 123456789012345678901234567890\n}" in body(
        superuser, page(row)
    )


def test_sensitive_arguments_are_masked(superuser: Client) -> None:
    name = tasks.send.name
    row = rows.task(name=name, args='["a@b.c", "hunter2"]', kwargs="{}", summary="")
    text = body(superuser, page(row))
    assert "a@b.c" in text
    assert "hunter2" not in text


def test_a_worker_whose_lease_is_over_is_lost(superuser: Client) -> None:
    rows.worker()
    lost = rows.worker(id=rows.key(7), name="web2", expires_at=rows.NOON)
    text = body(superuser, list_page(Worker))
    assert text.count('data-state="lost"') == 1
    assert text.count('data-state="running"') == 1
    assert 'data-state="lost"' in body(superuser, page(lost))


def test_a_worker_whose_heartbeat_is_overdue_may_be_gone(superuser: Client) -> None:
    row = rows.worker(seen_at=timezone.now())
    assert "(gone?)" not in body(superuser, list_page(Worker))
    Worker.objects.update(seen_at=timezone.now() - timedelta(seconds=11))
    assert "(gone?)" in body(superuser, list_page(Worker))
    assert "(gone?)" in body(superuser, page(row))
    Worker.objects.update(expires_at=rows.NOON)
    assert "(gone?)" not in body(superuser, list_page(Worker))


def test_a_worker_shows_what_this_version_tells_of_it(superuser: Client) -> None:
    row = rows.worker(processes=2, threads=1, coroutines=100)
    text = body(superuser, page(row))
    assert "2 x (1 thread + 100 coroutines)" in text
    for words in ("Memory", "CPU time", "Release", "Busy with", "Requests"):
        assert words not in text + body(superuser, list_page(Worker))


def test_a_task_that_is_being_revoked_says_so(superuser: Client) -> None:
    row = rows.task(state="RUNNING", revoke_requested=True)
    assert "is being revoked" in body(superuser, page(row))


def test_the_progress_of_a_running_task_is_told_in_words(superuser: Client) -> None:
    progress = '{"current": 37, "total": 100, "message": "orders of March"}'
    row = rows.task(state="RUNNING", progress=progress)
    assert "37 / 100 orders of March" in body(superuser, page(row))


def test_the_first_start_of_a_running_task_is_that_of_its_run(
    superuser: Client,
) -> None:
    row = rows.task(state="RUNNING", last_attempted_at=rows.at(11))
    shown = body(superuser, page(row))
    assert shown.count(moment(row.last_attempted_at)) == 2


@pytest.mark.parametrize(
    ("model", "make"),
    [(Task, rows.task), (Result, rows.result), (DeadLetter, rows.dead_letter)],
)
def test_a_list_shows_a_long_name_in_parts_and_whole_as_its_tooltip(
    superuser: Client, model: Any, make: Any
) -> None:
    name = LONG[:200]
    make(name=name, queue_name="q" * 100, order_key=-7)
    text = body(superuser, list_page(model))
    assert f'title="{name}"' in text
    assert f">{name}" not in text
    assert "recalculate_<wbr>the_<wbr>forecasts_<wbr>" in text
    assert "<small>warehouse.<wbr>tasks</small>" in text
    assert "<small>priority 7</small>" in text


def test_other_lists_show_long_names_in_parts(superuser: Client) -> None:
    Schedule.objects.create(name="nightly", task=LONG, kind="interval", interval=5)
    rows.task(3, name=LONG)
    rows.attempt(3, worker_name=HOSTILE)
    for model in (Schedule, Attempt):
        assert f'title="{LONG}"' in body(superuser, list_page(model))


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"state": "READY"}, "due: the next free worker of its queue takes it"),
        ({"state": "SCHEDULED"}, "due later, at the time given below"),
        ({"state": "SCHEDULED", "last_attempted_at": rows.NOON}, "the next one is due"),
        ({"state": "BLOCKED"}, "waits for other tasks or for a limit"),
        ({"state": "RUNNING"}, "a worker has it"),
        ({"state": "RUNNING", "revoke_requested": True}, "its worker interrupts it"),
        ({"state": "FUTURE"}, "FUTURE"),
    ],
)
def test_the_page_of_a_task_says_what_its_state_means(
    superuser: Client, more: dict[str, Any], words: str
) -> None:
    assert words in body(superuser, page(rows.task(**more)))


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("SUCCESSFUL", "it returned"),
        ("REVOKED", "somebody took it back"),
        ("EXPIRED", "it was too late to start it"),
    ],
)
def test_the_page_of_a_result_says_what_its_state_means(
    superuser: Client, state: str, words: str
) -> None:
    assert words in body(superuser, page(rows.result(state=state)))


def test_a_dead_letter_says_how_it_is_put_back_to_work(superuser: Client) -> None:
    row = rows.dead_letter()
    text = body(superuser, page(row))
    assert f"manage.py jobs retry {row.pk}" in text
    call = f'django_jobs.control.requeue(["{row.pk}"])'
    assert call in text
    assert control.requeue([str(row.pk)]) == [str(row.pk)]


def test_a_result_that_never_ran_took_no_time(superuser: Client) -> None:
    rows.result(state="REVOKED", last_attempted_at=None)
    assert "<small>took" not in body(superuser, list_page(Result))
    rows.result(2)
    assert "<small>took 2.5 s</small>" in body(superuser, list_page(Result))


def test_attempts_that_crashed_are_counted_by_themselves(superuser: Client) -> None:
    row = rows.task(attempt=3, crashes=2, max_attempts=1)
    assert "1 / 1" in body(superuser, list_page(Task))
    assert "1 of at most 1, besides 2 that crashed" in body(superuser, page(row))


def test_all_is_offered_where_not_all_is_shown(superuser: Client) -> None:
    rows.task()
    assert "Show all" not in body(superuser, list_page(Task))
    assert "Show all" in body(superuser, list_page(Task, state="RUNNING"))
    assert "Show all" in body(superuser, list_page(Task, q="nothing"))
