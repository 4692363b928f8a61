"""The report says what the rows say, each time in a process of the test project."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Report = Callable[..., list[str]]

MANAGE = Path(__file__).resolve().parents[2] / "manage.py"
DATABASE = os.environ.get("DJANGO_JOBS_TEST_DATABASE", "sqlite")
ROWS = """
import json, uuid
from django.core.management import call_command
from django.utils import timezone
from django_jobs.models import DeadLetter, Result
from library import files, report
from library.models import SourceFile
from library.tasks import measure, survey

call_command("migrate", verbosity=0)
root, now = files.roots()[0], timezone.now()

def common(name, **more):
    times = dict.fromkeys(("enqueued_at", "run_after", "finished_at"), now)
    times["last_attempted_at"] = now - timezone.timedelta(seconds=0.25)
    return {"id": uuid.uuid4(), "name": name, **times, **more}

def catalogued(path):
    return SourceFile.objects.create(path=path, task_id=uuid.uuid4()).path

def measured(name):
    path = catalogued(f"{root}/{name}")
    value = {"path": path, "bytes": 5, "lines": 4, "tokens": 3}
    fields = common(measure.name, state="SUCCESSFUL", return_value=json.dumps(value))
    Result.objects.create(**fields)

def failed(name):
    message = f"bad text for '{root}/{name}': x"
    error = {"exception_class": "builtins.SyntaxError", "message": message}
    args = json.dumps([catalogued(f"{root}/{name}")])
    DeadLetter.objects.create(**common(measure.name, args=args, **error))

def surveyed(count):
    fields = common(survey.name, state="SUCCESSFUL", args=json.dumps([root]))
    Result.objects.create(return_value=json.dumps({".py": count}), **fields)
"""

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(DATABASE != "sqlite", reason="always runs on SQLite"),
]


@pytest.fixture
def report(tmp_path: Path) -> Report:
    environment = {**os.environ, "DATABASE_URL": f"sqlite:///{tmp_path / 'demo'}"}
    environment.pop("DJANGO_SETTINGS_MODULE", None)
    environment["PYTHONPATH"] = str(MANAGE.parents[1])

    def report(rows: str, width: int | None = None) -> list[str]:
        code = f"{ROWS}\n{rows}\nprint(*report.lines(7, 2.0, {width}), sep='\\n')"
        command = [sys.executable, str(MANAGE), "shell", "-v", "0", "-c", code]
        process = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False
        )
        assert process.returncode == 0, process.stderr
        return process.stdout.splitlines()

    return report


def rows_of(lines: list[str]) -> list[str]:
    """Return lines with one blank where they have several."""
    return [" ".join(line.split()) for line in lines]


def test_the_counts_of_files_add_up(report: Report) -> None:
    lines = rows_of(report("measured('a.py'); failed('b.py'); catalogued('gone.py')"))
    assert lines[:4] == [
        "files 3 each with a task of its own",
        "measured 1",
        "failed 1 dead letters:",
        "- b.py: SyntaxError: bad text: x",
    ]
    assert "the rest 1 revoked, or pruned since" in lines
    assert "largest 5 bytes: a.py" in lines
    assert "slowest 250 ms: a.py" in lines
    assert "this run 7 tasks in 2.0 s" in lines


def test_it_says_when_no_file_failed(report: Report) -> None:
    lines = rows_of(report("measured('a.py')"))
    assert "failed 0 none: every file could be split into tokens" in lines
    assert not any("dead letters" in line or "rest" in line for line in lines)


def test_a_folder_that_was_surveyed_twice_counts_once(report: Report) -> None:
    lines = rows_of(report("surveyed(4); now = timezone.now(); surveyed(5)"))
    assert "folders 1 surveyed: 5 .py" in lines


def test_lines_are_broken_between_words(report: Report) -> None:
    name = "a_rather_long_folder/and_a_file_in_it_with_a_long_name.py"
    lines = report(f"measured('{name}')", 80)
    assert sum(line.endswith(name) for line in lines) == 2
    assert not any(len(line) > 80 for line in lines if name not in line)


def test_each_failed_file_has_one_line_that_is_cut_where_it_is_too_long(
    report: Report,
) -> None:
    name = "a_rather_long_folder/and_a_file_in_it_with_a_long_name.py"
    rows = f"failed('{name}'); failed('b.py')"
    lines = [line for line in report(rows, 80) if line.startswith("  - ")]
    assert lines[1:] == ["  - b.py: SyntaxError: bad text: x"]  # they are sorted
    assert len(lines[0]) == 80
    assert lines[0].startswith(f"  - {name}: ")
    assert lines[0].endswith("...")


def test_of_many_failed_files_the_first_are_named(report: Report) -> None:
    lines = report("[failed(f'f{number:02}.py') for number in range(23)]")
    assert sum("SyntaxError" in line for line in lines) == 20
    assert "  - and 3 more, all of them in the admin" in lines
