"""``manage.py jobs``: every command, both formats, and what it says of bad input."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import OperationalError
from django.utils import timezone

from django_jobs.control import Details, Status
from django_jobs.management import rendering
from django_jobs.management.commands import jobs
from django_jobs.models import DeadLetter, Result, Task
from django_jobs.store import get_store
from tests import rows
from tests.sampleapp import tasks

pytestmark = pytest.mark.django_db(databases=["default", "other"])

UNKNOWN = rows.key(999)
Requires = Callable[..., None]


class Answer:
    """What a command printed, and how it ended."""

    def __init__(self, *words: Any) -> None:
        out, err = io.StringIO(), io.StringIO()
        self.error = ""
        try:
            call_command("jobs", *map(str, words), stdout=out, stderr=err)
        except CommandError as error:
            self.error = str(error)
        self.out, self.notes = out.getvalue(), err.getvalue()

    @property
    def data(self) -> Any:
        return json.loads(self.out)


def ask(*words: Any) -> Answer:
    """Return the answer of a command that ends well."""
    answer = Answer(*words)
    assert answer.error == ""
    return answer


# -- status -------------------------------------------------------------------------


def test_the_status_of_an_empty_queue_says_what_is_missing() -> None:
    answer = ask("status")
    assert answer.out == "Oldest ready  -\nDead letters  0\n"
    assert answer.notes == (
        "No worker is running; start one with: manage.py jobworker\n"
    )


def test_the_status_counts_tasks_by_queue_and_state() -> None:
    rows.task(1)
    rows.task(2)
    rows.task(3, state="RUNNING")
    rows.task(4, queue_name="reports", state="SCHEDULED")
    rows.dead_letter(5)
    rows.worker()
    answer = ask("status", "--format", "json")
    data = answer.data
    assert list(data) == [
        "now",
        "queues",
        "dead_letters",
        "oldest_ready_seconds",
        "workers",
        "unserved_queues",
    ]
    assert data["queues"] == {
        "mail": {"READY": 2, "SCHEDULED": 0, "BLOCKED": 0, "RUNNING": 1},
        "reports": {"READY": 0, "SCHEDULED": 1, "BLOCKED": 0, "RUNNING": 0},
    }
    assert data["dead_letters"] == 1
    assert data["oldest_ready_seconds"] > 0
    assert data["workers"][0]["name"] == "web1:4711"
    assert data["workers"][0]["is_alive"] is True
    assert data["unserved_queues"] == []
    assert answer.notes == ""


def test_the_status_is_aligned_for_people() -> None:
    store = get_store()
    rows.worker(queues="mail:2", running=3)
    rows.worker(id=rows.key(9), name="old", host="far", pid=7, expires_at=rows.NOON)
    rows.worker(id=rows.key(8), name="web2:3", pid=3, seen_at=rows.at(65))
    status = Status(
        now=rows.at(75),
        queues={"mail": {"READY": 12, "RUNNING": 3}, "reports": {"SCHEDULED": 1}},
        workers=store.workers(),
        dead_letters=4,
        oldest_ready=90.0,
    )
    assert rendering.status_text(status) == (
        "Oldest ready  1 min 30 s\n"
        "Dead letters  4\n"
        "\n"
        "QUEUE    READY  SCHEDULED  BLOCKED  RUNNING\n"
        "mail        12          0        0        3\n"
        "reports      0          1        0        0\n"
        "\n"
        "WORKER     STATE            HOST   PID  QUEUES  RUNNING  HEARTBEAT\n"
        "old        lost             far      7  all           0  1 min 15 s ago\n"
        "web1:4711  running (gone?)  web1  4711  mail:2        3  1 min 15 s ago\n"
        "web2:3     running          web1     3  all           0  10 s ago"
    )


def test_due_tasks_without_any_worker_are_counted() -> None:
    rows.task(1)
    rows.task(2, queue_name="reports")
    rows.task(3, queue_name="later", state="SCHEDULED")
    rows.worker(expires_at=rows.NOON)
    answer = ask("status", "--format", "json")
    assert answer.data["unserved_queues"] == ["mail", "reports"]
    assert answer.notes == (
        "No worker is running, and 2 tasks are due; "
        "start one with: manage.py jobworker\n"
    )


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_queue_with_due_tasks_that_nobody_serves_is_told(form: str) -> None:
    rows.task(1)
    rows.task(2, queue_name="reports")
    rows.task(3, queue_name="later", state="SCHEDULED")
    rows.worker(queues="mail,other")
    rows.worker(id=rows.key(9), name="lost", queues="reports", expires_at=rows.NOON)
    answer = ask("status", "--format", form)
    assert answer.notes == (
        "No running worker serves the queue 'reports', where 1 task is due; "
        "start one with: manage.py jobworker --queues reports\n"
    )
    if form == "json":
        assert answer.data["unserved_queues"] == ["reports"]


# -- list ---------------------------------------------------------------------------


def test_a_list_is_aligned_and_the_newest_come_first() -> None:
    rows.task(1, name="shop.tasks.export", queue_name="reports")
    rows.result(2, attempt=2)
    rows.dead_letter(3)
    assert ask("list").out == (
        "ID                                    STATE       TASK               QUEUE  "
        "  ATTEMPTS  ENQUEUED             ARGUMENTS\n"
        f"{rows.key(3)}  FAILED      shop.tasks.send    mail   "
        "  3/3       2026-03-01 12:00:00  42, to='Zoe'\n"
        f"{rows.key(2)}  SUCCESSFUL  shop.tasks.send    mail   "
        "  2/3       2026-03-01 12:00:00  42, to='Zoe'\n"
        f"{rows.key(1)}  READY       shop.tasks.export  reports"
        "  0/3       2026-03-01 12:00:00  42, to='Zoe'\n"
    )


@pytest.mark.parametrize(
    ("state", "titles"),
    [
        ("ready", ["ENQUEUED", "DUE"]),
        ("scheduled", ["ENQUEUED", "DUE"]),
        ("running", ["ENQUEUED"]),
        ("successful", ["ENQUEUED", "FINISHED"]),
        ("failed", ["FINISHED", "REASON"]),
    ],
)
def test_a_list_of_one_state_shows_what_is_looked_for(
    state: str, titles: list[str]
) -> None:
    for number, each in enumerate(["READY", "SCHEDULED", "RUNNING"]):
        rows.task(number, state=each, run_after=rows.at(3600))
    rows.result(4)
    rows.dead_letter(5)
    head, line = ask("list", "--state", state).out.splitlines()
    assert head.split()[5:-1] == titles
    words = {
        "DUE": "2026-03-01 13:00:00",
        "ENQUEUED": "2026-03-01 12:00:00",
        "FINISHED": "2026-03-01 12:0",
        "REASON": "attempts used up",
    }
    for title in titles:
        assert line[head.index(title) :].startswith(words[title])


def test_a_list_as_json_has_stable_keys() -> None:
    rows.dead_letter(3)
    (line,) = ask("list", "--format", "json").data["tasks"]
    assert line == {
        "id": rows.key(3),
        "state": "FAILED",
        "name": "shop.tasks.send",
        "queue_name": "mail",
        "priority": 0,
        "attempt": 3,
        "max_attempts": 3,
        "enqueued_at": "2026-03-01T12:00:00+00:00",
        "run_after": "2026-03-01T12:00:00+00:00",
        "finished_at": "2026-03-01T12:01:01+00:00",
        "summary": "42, to='Zoe'",
        "reason": "attempts used up",
    }


@pytest.mark.parametrize(
    ("words", "numbers"),
    [
        (["--state", "ready"], [1]),
        (["--state", "Successful"], [2]),
        (["--state", "FAILED"], [4, 3]),
        (["--queue", "reports"], [4]),
        (["--task", "shop.tasks.export"], [1]),
        (["--queue", "mail", "--task", "shop.tasks.send"], [3, 2]),
        (["--limit", "2"], [4, 3]),
    ],
)
def test_a_list_is_narrowed(words: list[str], numbers: list[int]) -> None:
    rows.task(1, name="shop.tasks.export")
    rows.result(2)
    rows.dead_letter(3)
    rows.dead_letter(4, queue_name="reports")
    lines = ask("list", *words, "--format", "json").data["tasks"]
    assert [line["id"] for line in lines] == [rows.key(each) for each in numbers]


def test_a_list_that_is_cut_says_so() -> None:
    for number in range(3):
        rows.task(number)
    cut = ask("list", "--limit", "2")
    assert cut.notes == "These are the newest 2; --limit N shows more.\n"
    assert len(cut.out.splitlines()) == 3
    assert ask("list", "--limit", "3").notes == ""


def test_a_list_without_tasks_says_so_and_prints_no_title() -> None:
    answer = ask("list")
    assert (answer.out, answer.notes) == ("", "No task matches.\n")


def test_a_task_that_is_not_registered_is_remarked_upon() -> None:
    answer = ask("list", "--task", tasks.add.name + "x")
    assert f"Did you mean {tasks.add.name!r}?" in answer.notes


def test_the_last_part_of_a_name_is_enough_for_a_proposal() -> None:
    rows.task(1, name="shop.tasks.divide")
    rows.result(2, name="other.tasks.divide")
    rows.dead_letter(3, name="shop.tasks.subdivide")
    answer = ask("list", "--task", "divide", "--format", "json")
    assert answer.data == {"tasks": []}
    assert answer.notes == (
        "No task matches. Mind that no task is registered by the name 'divide'. "
        "Did you mean 'other.tasks.divide' or 'shop.tasks.divide'?\n"
    )
    add = tasks.add.name
    assert repr(add) in ask("list", "--task", "add").notes
    assert "'shop.tasks.divide'" in ask("list", "--task", "divid").notes
    assert "did you mean" not in ask("list", "--task", "zzzzzz").notes.lower()


@pytest.mark.parametrize(
    ("state", "hint"),
    [("faild", "Did you mean 'FAILED'?"), ("redy", "Did you mean 'READY'?"), ("x", "")],
)
def test_an_unknown_state_is_refused_with_what_there_is(state: str, hint: str) -> None:
    error = Answer("list", "--state", state).error
    assert f"there is no state {state!r}." in error
    assert hint in error
    assert "READY, SCHEDULED, BLOCKED, RUNNING, SUCCESSFUL, REVOKED" in error


@pytest.mark.parametrize("limit", ["0", "-1", "many"])
def test_a_limit_is_a_number_from_one_on(limit: str) -> None:
    assert "is no number from 1 on" in Answer("list", f"--limit={limit}").error


def test_a_limit_that_no_database_understands_is_refused() -> None:
    assert "is too large" in Answer("list", "--limit", "9" * 20).error
    assert ask("list", "--limit", "0000000000001").notes == "No task matches.\n"


# -- show ---------------------------------------------------------------------------


def test_everything_of_a_task_is_shown() -> None:
    rows.dead_letter(1, crashes=1)
    rows.attempt(1, 1, log="INFO half way\n")
    rows.attempt(1, 2, verdict="failed", traceback="", worker_name="")
    assert ask("show", rows.key(1)).out == (
        "Task           shop.tasks.send\n"
        f"Id             {rows.key(1)}\n"
        "State          FAILED (attempts used up)\n"
        "Queue          mail\n"
        "Priority       0\n"
        "Attempts       3 of at most 3, 1 of them crashed\n"
        "Enqueued       2026-03-01 12:00:00\n"
        "Due            2026-03-01 12:00:00\n"
        "First started  2026-03-01 12:00:01\n"
        "Last started   2026-03-01 12:01:00\n"
        "Finished       2026-03-01 12:01:01\n"
        "\n"
        "Arguments:\n"
        "  [\n"
        "    42\n"
        "  ]\n"
        "\n"
        "Arguments by name:\n"
        "  {\n"
        '    "to": "Zoe"\n'
        "  }\n"
        "\n"
        "Attempt 1: retry on web1:4711\n"
        "  2026-03-01 12:00:01 to 2026-03-01 12:00:02\n"
        "  Traceback (most recent call last):\n"
        '    File "a.py", line 1\n'
        "  KeyError: 7\n"
        "  Log:\n"
        "  INFO half way\n"
        "\n"
        "Attempt 2: failed\n"
        "  2026-03-01 12:00:01 to 2026-03-01 12:00:02\n"
        "  builtins.KeyError: 7\n"
    )


def test_a_task_as_json_has_its_values_decoded() -> None:
    rows.result(1)
    rows.attempt(1)
    data = ask("show", rows.key(1), "--format", "json").data
    assert set(data) == {
        *("id", "state", "name", "queue_name", "priority", "args", "kwargs"),
        *("metadata", "max_attempts", "attempt", "crashes", "enqueued_at"),
        *("run_after", "started_at", "last_attempted_at", "finished_at"),
        *("return_value", "revoke_requested", "reason", "attempts"),
        *("why_not_run", "log", "progress", "message"),
    }
    assert (data["args"], data["kwargs"]) == ([42], {"to": "Zoe"})
    assert data["return_value"] == {"sent": True}
    (attempt,) = data["attempts"]
    assert attempt["number"] == 1
    assert attempt["traceback"] == rows.TRACEBACK


def test_a_dead_letter_whose_error_no_attempt_tells_of_shows_it() -> None:
    words = "these columns of the row cannot be read: args, kwargs"
    rows.dead_letter(1, message=words, reason="the row cannot be read")
    rows.attempt(1)
    assert f"\nError          {words}\n" in ask("show", rows.key(1)).out
    assert ask("show", rows.key(1), "--format", "json").data["message"] == words
    rows.attempt(1, 2, message=words)
    assert "\nError " not in ask("show", rows.key(1)).out


def test_the_progress_of_a_running_task_is_shown() -> None:
    progress = '{"current": 37, "total": 100, "message": "orders \\u001b of March"}'
    rows.task(1, state="RUNNING", attempt=1, progress=progress)
    answer = ask("show", rows.key(1))
    assert "\nProgress       37 / 100 orders \\x1b of March\n" in answer.out
    data = ask("show", rows.key(1), "--format", "json").data
    assert (data["progress"]["current"], data["progress"]["total"]) == (37, 100)


def test_the_first_start_of_a_running_task_is_that_of_its_run() -> None:
    rows.task(1, state="RUNNING", attempt=1, last_attempted_at=rows.at(11))
    answer = ask("show", rows.key(1))
    starts = [each.split()[2:] for each in answer.out.splitlines() if "started" in each]
    assert starts[0] == starts[1] != ["-"]


def test_an_id_is_understood_without_its_dashes() -> None:
    rows.task(1)
    assert rows.key(1) in ask("show", rows.key(1).replace("-", "").upper()).out


def test_a_task_that_no_worker_knows_says_why_it_does_not_run() -> None:
    rows.task(1, name="add", state="SCHEDULED", unknown_since=rows.NOON)
    answer = ask("show", rows.key(1))
    (line,) = [each for each in answer.out.splitlines() if "Not run" in each]
    assert "no task is registered here by the name 'add'." in line
    assert f" or {tasks.add.name!r}" in line
    assert "No worker that claimed it since 2026-03-01 12:00:00 knows " in line
    assert "its name; it becomes a dead letter 1 d after that" in line
    data = ask("show", rows.key(1), "--format", "json").data
    assert "no task is registered here" in data["why_not_run"]


@pytest.mark.parametrize("more", [{"name": tasks.add.name}, {"state": "RUNNING"}])
def test_nothing_is_said_of_a_task_that_will_run(more: dict[str, str]) -> None:
    rows.task(1, **more)
    assert "Not run" not in ask("show", rows.key(1)).out
    data = ask("show", rows.key(1), "--format", "json").data
    assert (data["why_not_run"], data["log"]) == ("", None)


def test_the_log_of_a_successful_task_is_shown_where_it_is_kept() -> None:
    rows.result(1, log="INFO begun\nINFO \x1b[2Jdone")
    out = ask("show", rows.key(1)).out
    assert out.endswith("Log:\n  INFO begun\n  INFO \\x1b[2Jdone\n")
    data = ask("show", rows.key(1), "--format", "json").data
    assert data["log"] == "INFO begun\nINFO \x1b[2Jdone"


def test_sensitive_arguments_are_masked() -> None:
    rows.task(1, name=tasks.send.name, args='["a@b.c", "hunter2"]', kwargs="{}")
    for form in ("text", "json"):
        out = ask("show", rows.key(1), "--format", form).out
        assert "hunter2" not in out
        assert "a@b.c" in out


def test_a_task_that_is_being_revoked_says_so() -> None:
    rows.task(1, state="RUNNING", revoke_requested=True)
    assert "RUNNING (is being revoked)" in ask("show", rows.key(1)).out


def test_values_that_are_no_json_are_shown_as_they_are() -> None:
    rows.task(1, args="not JSON")
    assert "  not JSON" in ask("show", rows.key(1)).out
    assert ask("show", rows.key(1), "--format", "json").data["args"] == "not JSON"


def test_nothing_that_moves_the_cursor_reaches_the_terminal() -> None:
    evil = "\x1b[2J\x1b]0;title\x07\r\x9b31m"
    rows.task(
        1, name=evil, queue_name=evil, summary=f"{evil}\nsecond", args='"\\ud800"'
    )
    rows.attempt(1, message=evil, traceback=f"first\n{evil}", log=evil)
    rows.worker(name=evil, host=evil, queues=evil)
    for words in (["status"], ["list"], ["show", rows.key(1)]):
        out = ask(*words).out
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff]", out)
        assert "\\x1b[2J" in out


@pytest.mark.parametrize("command", ["show", "retry", "revoke"])
def test_what_is_no_id_is_refused_with_an_example(command: str) -> None:
    error = Answer(command, "mail").error
    assert "'mail' is no id of a task; an id looks like 0198" in error


def test_a_task_that_is_not_there_may_have_been_pruned() -> None:
    error = Answer("show", UNKNOWN).error
    assert UNKNOWN in error
    assert "was its result pruned?" in error


# -- retry --------------------------------------------------------------------------


def test_dead_letters_go_back_to_work_by_their_ids() -> None:
    rows.dead_letter(1)
    rows.dead_letter(2)
    answer = ask("retry", rows.key(1))
    assert answer.out == f"{rows.key(1)}  retried\n"
    assert answer.notes == "1 dead letter back at work.\n"
    assert Task.objects.get().state == "READY"
    assert str(DeadLetter.objects.get().pk) == rows.key(2)


def test_what_is_no_dead_letter_is_named_and_the_others_are_retried() -> None:
    rows.dead_letter(1)
    rows.result(2)
    answer = Answer("retry", rows.key(1), rows.key(2), UNKNOWN, "--format", "json")
    left = [rows.key(2), UNKNOWN]
    assert answer.data == {"retried": [rows.key(1)], "not_dead_letters": left}
    assert answer.error == f"not a dead letter: {rows.key(2)}, {UNKNOWN}"


@pytest.mark.parametrize(
    ("words", "numbers"),
    [
        (["--all"], [1, 2, 3, 4]),
        (["--queue", "reports"], [2]),
        (["--task", "shop.tasks.export"], [3]),
        (["--error", "KeyError"], [1, 2]),
        (["--error", "builtins.KeyError"], [1, 2]),
        (["--error", "my_Error"], [4]),
        (["--error", "rror"], []),
        (["--error", "KeyError", "--queue", "mail"], [1]),
        (["--error", "%"], []),
        (["--error", "keyerror"], []),
        (["--error", "Builtins.KeyError"], []),
        (["--error", "KeyError "], []),
    ],
)
def test_dead_letters_are_chosen_by_what_they_have_in_common(
    words: list[str], numbers: list[int]
) -> None:
    rows.dead_letter(1)
    rows.dead_letter(2, queue_name="reports")
    rows.dead_letter(3, name="shop.tasks.export", exception_class="shop.myXError")
    rows.dead_letter(4, exception_class="shop.my_Error")
    dry = ask("retry", *words, "--dry-run", "--format", "json")
    assert dry.data == {"would_retry": [rows.key(each) for each in numbers]}
    assert DeadLetter.objects.count() == 4
    ask("retry", *words, "--yes")
    assert DeadLetter.objects.count() == 4 - len(numbers)


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        ("Valueerror", " Did you mean 'builtins.ValueError'?"),
        ("VALUEERROR", " Did you mean 'builtins.ValueError'?"),
        ("KeyEror", " Did you mean 'builtins.KeyError'?"),
        ("shop.ValueError", " Did you mean 'builtins.ValueError'?"),
        ("zzzzzz", ""),
    ],
)
def test_an_error_that_no_dead_letter_has_is_answered_with_those_they_have(
    error: str, hint: str
) -> None:
    rows.dead_letter(1)
    rows.dead_letter(2, exception_class="builtins.ValueError")
    rows.dead_letter(3, exception_class="", reason="no worker knows this task")
    answer = ask("retry", "--error", error, "--yes")
    assert answer.notes.splitlines()[0] == f"No dead letter matches.{hint}"
    assert DeadLetter.objects.count() == 3


def test_an_error_that_is_there_is_not_proposed() -> None:
    rows.dead_letter(1)
    answer = ask("retry", "--error", "KeyError", "--queue", "reports")
    assert answer.notes.splitlines()[0] == "No dead letter matches."


def test_a_part_without_the_right_error_does_not_end_the_search() -> None:
    for number in range(1, 6):
        rows.dead_letter(number, exception_class="builtins.Keyerror")
    rows.dead_letter(6)
    found = get_store().find_dead_letters(error="KeyError", limit=2)
    assert found == [rows.key(6)]


def test_many_are_retried_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "_RETRIED_AT_ONCE", 2)
    for number in range(5):
        rows.dead_letter(number)
    answer = ask("retry", "--all", "--yes", "--format", "json")
    assert len(answer.data["retried"]) == Task.objects.count() == 5


def test_many_are_retried_only_when_that_is_confirmed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows.dead_letter(1)
    rows.dead_letter(2)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    error = Answer("retry", "--all").error
    assert error == "Retry 2 dead letters? Say so with --yes, or look with --dry-run."
    assert DeadLetter.objects.count() == 2


@pytest.mark.parametrize(("words", "left"), [("y\n", 0), ("\n", 2), ("no\n", 2)])
def test_a_person_is_asked(
    words: str, left: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows.dead_letter(1)
    rows.dead_letter(2)
    stdin = io.StringIO(words)
    monkeypatch.setattr(stdin, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdin", stdin)
    answer = Answer("retry", "--all")
    assert "Retry 2 dead letters? [y/N]" in answer.notes
    assert DeadLetter.objects.count() == left
    assert bool(answer.error) == bool(left)


def test_one_that_matches_needs_no_confirmation() -> None:
    rows.dead_letter(1)
    assert ask("retry", "--all").out == f"{rows.key(1)}  retried\n"


def test_none_that_matches_is_no_error() -> None:
    answer = ask("retry", "--task", "x")
    assert answer.out == ""
    assert answer.notes.startswith("No dead letter matches. Mind that no task")


@pytest.mark.parametrize("words", [[], [UNKNOWN, "--all"], [UNKNOWN, "--queue", "a"]])
def test_it_must_be_clear_what_to_retry(words: list[str]) -> None:
    assert "name the tasks by their ids, or choose" in Answer("retry", *words).error


# -- revoke -------------------------------------------------------------------------


def test_tasks_are_revoked_and_each_is_answered_for() -> None:
    rows.task(1)
    rows.task(2, state="RUNNING", worker_id=rows.WORKER, attempt=1)
    answer = ask("revoke", rows.key(1), rows.key(2), rows.key(1))
    assert answer.out == (
        f"{rows.key(1)}  revoked\n{rows.key(2)}  running, is being stopped\n"
    )
    assert Result.objects.get().state == "REVOKED"
    assert Task.objects.get().revoke_requested


def test_what_cannot_be_revoked_is_named() -> None:
    rows.task(1)
    rows.result(2)
    answer = Answer("revoke", rows.key(1), rows.key(2), UNKNOWN, "--format", "json")
    assert answer.data == {
        rows.key(1): "revoked",
        rows.key(2): "finished",
        UNKNOWN: "not found",
    }
    assert answer.error == f"not revoked: {rows.key(2)}, {UNKNOWN}"


# -- prune --------------------------------------------------------------------------


def test_what_is_past_its_retention_is_deleted() -> None:
    rows.result(1, prune_at=rows.NOON)
    rows.result(2, prune_at=datetime(2226, 1, 1, tzinfo=UTC))
    rows.result(3, prune_at=None)
    rows.dead_letter(4, prune_at=rows.NOON)
    assert ask("prune", "--dry-run").out == "2 would be deleted\n"
    assert Result.objects.count() == 3
    assert ask("prune").out == "2 deleted\n"
    assert [str(each.pk)[-1] for each in Result.objects.order_by("pk")] == ["2", "3"]
    assert not DeadLetter.objects.exists()


def test_an_age_overrides_the_retention() -> None:
    rows.result(1, finished_at=timezone.now())
    rows.result(2, finished_at=timezone.now() - timedelta(days=8))
    words = ["prune", "--older-than", "7d", "--format", "json"]
    assert ask(*words, "--dry-run").data == {"would_delete": 1}
    assert ask(*words).data == {"deleted": 1}
    assert str(Result.objects.get().pk) == rows.key(1)


@pytest.mark.parametrize("age", ["7", "week", "-1d", "7x"])
def test_an_age_is_a_number_and_a_unit(age: str) -> None:
    error = Answer("prune", f"--older-than={age}").error
    assert "is no length of time; write 10s, 5m, 2h or 7d" in error


def test_an_age_beyond_all_dates_is_refused() -> None:
    error = Answer("prune", "--older-than", "9999999999d").error
    assert "between 0 and 10,000 days" in error


# -- the command itself -------------------------------------------------------------


def test_another_database_is_asked() -> None:
    Task.objects.using("other").create(
        id=rows.key(1),
        name="far",
        queue_name="q",
        enqueued_at=rows.NOON,
        run_after=rows.NOON,
    )
    assert ask("list", "--format", "json").data == {"tasks": []}
    (line,) = ask("list", "--format", "json", "--database", "other").data["tasks"]
    assert line["name"] == "far"
    assert "far" in ask("show", rows.key(1), "--database", "other").out


def test_a_database_that_is_not_there_is_refused_with_a_hint() -> None:
    error = Answer("status", "--database", "othr").error
    assert error == "there is no database 'othr' in DATABASES. Did you mean 'other'?"


@pytest.mark.parametrize("words", [[], ["stats"], ["show"], ["list", "--format", "x"]])
def test_words_that_are_not_understood_are_refused(words: list[str]) -> None:
    assert Answer(*words).error


def test_without_a_command_those_that_there_are_are_listed() -> None:
    answer = Answer()
    assert (answer.out, answer.error) == ("", "say which command")
    for name, (words, *_) in jobs._COMMANDS.items():
        assert re.search(rf"^ +{name} +{words[:20]}", answer.notes, re.M)


@pytest.mark.parametrize("words", ["status", "list", "prune", "retry --all"])
def test_tables_that_are_missing_are_an_error_of_one_line(
    words: str, worker_env: dict[str, str], tmp_path: Path, requires: Requires
) -> None:
    requires("sqlite")
    empty = {**worker_env, "DJANGO_JOBS_TEST_NAME_DEFAULT": str(tmp_path / "new")}
    done = subprocess.run(
        [sys.executable, "-m", "django", "jobs", *words.split(), "--format", "json"],
        env=empty,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "CommandError: the tables of django_jobs are missing on 'default': "
        "run manage.py migrate --database default\n"
    )


def test_a_database_that_fails_is_an_error_of_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(alias: str) -> None:
        raise OperationalError("server closed\nthe connection")

    monkeypatch.setattr(jobs.control, "status", fail)
    error = Answer("status").error
    assert error.startswith("the database 'default' did not do it: server closed")
    assert "\n" not in error


@pytest.mark.parametrize("words", ["retry", "revoke"])
def test_nothing_is_done_when_one_of_the_ids_is_none(words: str) -> None:
    rows.task(1)
    rows.dead_letter(2)
    answer = Answer(words, rows.key(1), rows.key(2), "mail", "--format", "json")
    assert "'mail' is no id of a task" in answer.error
    assert answer.out == ""
    assert (Task.objects.count(), DeadLetter.objects.count()) == (1, 1)


def test_a_list_without_rows_renders_as_nothing() -> None:
    assert rendering.list_text([]) == ""


def test_details_without_attempts_end_with_the_values() -> None:
    rows.task(1, args="[]", kwargs="{}")
    record = get_store().fetch(rows.key(1))
    assert record is not None
    text = rendering.details_text(Details(record, []))
    assert text.endswith("Finished       -")


def test_answers_and_notes_go_to_streams_of_their_own(
    worker_env: dict[str, str],
) -> None:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "django", "jobs", *words],
            env={**worker_env, "PYTHONWARNINGS": "error"},
            capture_output=True,
            text=True,
            timeout=60,
            cwd=os.path.dirname(__file__),
        )

    fine = run("status", "--settings=tests.settings", "--no-color")
    assert (fine.returncode, fine.stdout) == (0, "Oldest ready  -\nDead letters  0\n")
    assert fine.stderr == "No worker is running; start one with: manage.py jobworker\n"
    bad = run("show", UNKNOWN)
    assert (bad.returncode, bad.stdout) == (1, "")
    assert bad.stderr.startswith("CommandError: no task has the id")
