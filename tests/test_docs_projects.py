"""Projects that follow the documentation get what it says, also from commands."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.doc_pages import ROOT, blocks, read, section

# -- the quick start ---------------------------------------------------------------

_PLACE = re.compile(r"# (?P<end>at the end of )?(?P<path>[\w/]+\.py)\n")
_ID = re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b")
#: Runs a session as the reader would, and compares what it prints.
_SESSION = """
import doctest, pathlib, sys
session = pathlib.Path("session.txt").read_text()
test = doctest.DocTestParser().get_doctest(session, {}, "session", None, 0)
flags = doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL
sys.exit(doctest.DocTestRunner(optionflags=flags).run(test).failed)
"""
_VISIT = """
import time
from django.test import Client
client = Client(headers={"host": "localhost"})
answer = client.get("/count/", {"text": "to be or not to be"}).json()
until = time.monotonic() + 30
while answer["status"] not in ("SUCCESSFUL", "FAILED") and time.monotonic() < until:
    answer = answer | client.get(f"/count/{answer['id']}/").json()
assert answer["words"] == 6, answer
unknown = client.get("/count/01a1fe3e-9ec5-73fb-ab8c-6b651e507ca1/")
assert unknown.status_code == 404, unknown.status_code
"""


class Project:
    """A project that follows the quick start."""

    def __init__(self, folder: Path, page: str) -> None:
        self.folder = folder
        unwanted = ("DJANGO_SETTINGS_MODULE", "DATABASE_URL")
        self.env = {key: os.environ[key] for key in os.environ if key not in unwanted}
        self.env |= {"PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
        self.run("-m", "django", "startproject", "mysite", ".")
        self.manage("startapp", "shop")
        for _, text in blocks(page, "python"):
            self.write(text)

    def write(self, text: str) -> None:
        match = _PLACE.match(text)
        assert match, f"in which file?\n{text}"
        with (self.folder / match["path"]).open("a" if match["end"] else "w") as file:
            file.write(text)

    def run(self, *arguments: str) -> str:
        done = self.start(*arguments)
        return done.stdout + done.stderr

    def start(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    def manage(self, *arguments: str) -> str:
        return self.run("manage.py", *arguments)

    def jobs(self, command: str, *arguments: str) -> Any:
        """Return what a command prints as JSON."""
        words = ("manage.py", *command.split(), *arguments, "--format", "json")
        return json.loads(self.start(*words).stdout)

    def start_worker(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "manage.py", "jobworker", "--processes", "1"]
        return subprocess.Popen(command, cwd=self.folder, env=self.env)


@pytest.mark.processes
def test_the_quick_start_works_as_it_is_written(tmp_path: Path) -> None:
    page = read("quickstart.md")
    project = Project(tmp_path, page)
    assert "Applying django_jobs.0001_initial... OK" in project.manage("migrate")
    checked = project.manage("check", "--database", "default")
    assert checked in page
    sessions = "\n".join(text for _, text in blocks(page, "pycon"))
    (tmp_path / "session.txt").write_text(_ID.sub("...", sessions))
    worker = project.start_worker()
    try:
        project.manage("shell", "-c", _SESSION)
        project.manage("shell", "-c", _VISIT)
    finally:
        worker.terminate()
        assert worker.wait(60) == 0
    assert "shop.tasks.divide" in project.manage("jobs", "list", "--state", "failed")


@pytest.mark.processes
def test_the_tests_of_the_guide_to_tests_pass(tmp_path: Path) -> None:
    page = read("howto/testing.md")
    project = Project(tmp_path, read("quickstart.md") + page)
    [(_, session)] = blocks(page, "console")
    command = session.removeprefix("$ python manage.py ").split()
    said = project.manage(*command)
    assert f"Ran {page.count('def test_')} tests" in said
    assert "\nOK\n" in said
    assert not (tmp_path / "db.sqlite3").exists()


# -- JSON --------------------------------------------------------------------------

_FOR_JSON = """
from shop.tasks import count_words, divide
divide.using(max_attempts=1).enqueue(1, 0)
count_words.using(run_after=3600).enqueue("later")
"""


def shape_of(value: Any) -> Any:
    """Return what stays of JSON without its values: keys, and the first of a list."""
    if isinstance(value, dict):
        return {_ID.sub("ID", key): shape_of(each) for key, each in value.items()}
    return [shape_of(each) for each in value[:1]] if isinstance(value, list) else None


@pytest.mark.processes
def test_the_examples_of_json_are_those_of_the_commands(tmp_path: Path) -> None:
    page = section(read("reference/commands.md"), "JSON")
    examples = {note: json.loads(text) for note, text in blocks(page, "json")}
    project = Project(tmp_path, read("quickstart.md"))
    project.manage("migrate")
    project.manage("shell", "-c", _FOR_JSON)

    def look(command: str, *more: str) -> None:
        answer = project.jobs(command, *more)
        assert shape_of(answer) == shape_of(examples.pop(command)), command

    def ids(state: str) -> list[str]:
        return [
            each["id"] for each in project.jobs(f"jobs list --state {state}")["tasks"]
        ]

    worker = project.start_worker()
    try:
        wait_until(lambda: ids("failed"))
        look("jobs status")
    finally:
        worker.terminate()
        worker.wait(60)
    look("jobs list")
    look("jobs show", *ids("failed"))
    look("jobs retry --dry-run", "--all")
    look("jobs revoke", *ids("scheduled"))
    look("jobs retry", *ids("failed"))
    look("jobs prune --dry-run")
    look("jobs prune")
    assert not examples


def wait_until(is_so: Callable[[], object]) -> None:
    until = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.1)
