"""The documentation says what the code says, and its snippets run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import django
import pytest
from django.apps import apps
from django.core.management.base import BaseCommand, CommandParser

from django_jobs import context, control, definitions, exceptions, results, signals
from django_jobs.conf import Conf
from django_jobs.management.commands import jobs, jobworker
from django_jobs.options import EnqueueOptions, TaskOptions
from django_jobs.states import MOVES, State

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PACKAGE = ROOT / "django_jobs"
PAGES = sorted(DOCS.rglob("*.md"))

#: A fenced block: what stands in the line before it, its language, its text.
_BLOCK = re.compile(
    r"^(?:% (?P<note>[^\n]*)\n\n?)?```(?P<language>\w+)\n(?P<text>.*?)^```$",
    re.M | re.S,
)


def read(name: str) -> str:
    return (DOCS / name).read_text()


def blocks(page: str, language: str) -> Iterator[tuple[str, str]]:
    """Yield the note before and the text of each block of a language."""
    for match in _BLOCK.finditer(page):
        if match["language"] == language:
            yield match["note"] or "", match["text"]


def tables(page: str) -> Iterator[list[str]]:
    """Yield the cells of each row of the tables, headings left out."""
    for table in re.findall(r"(?:^\|.*\n)+", page, re.M):
        for line in table.splitlines()[2:]:
            yield [cell.strip() for cell in line.strip("|").split(" | ")]


def first_words(page: str) -> list[str]:
    """Return the words in code of the first cells of the tables."""
    return [word for row in tables(page) for word in re.findall(r"`([^`]+)`", row[0])]


def section(page: str, heading: str) -> str:
    """Return what stands under a heading."""
    _, _, rest = page.partition(f"\n## {heading}\n")
    assert rest, heading
    return rest.partition("\n## ")[0]


# -- reference ---------------------------------------------------------------------


def _default(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(f"`{each!r}`" for each in value) or "empty"
    return f"`{value!r}`"


def test_the_settings_are_the_fields_of_conf_with_their_types_and_defaults() -> None:
    rows = tables(read("reference/settings.md"))
    shown = {row[0].strip("`"): row[1:3] for row in rows}
    assert shown == {
        field.name: [
            str(field.type)
            .replace(" | None", " or None")
            .replace("tuple[str, ...]", "list of str"),
            _default(field.default),
        ]
        for field in fields(Conf)
    }


def test_the_options_of_a_task_are_those_of_the_decorator() -> None:
    shown = first_words(section(read("reference/options.md"), "`@task`"))
    assert shown == [field.name for field in fields(TaskOptions)]


def test_the_options_of_using_are_those_of_the_method() -> None:
    shown = first_words(section(read("reference/options.md"), "`using()`"))
    assert shown == [field.name for field in fields(EnqueueOptions)]


def _options_of(command: BaseCommand) -> set[str]:
    parser = CommandParser()
    command.add_arguments(parser)
    parsers = [parser]
    for action in parser._actions:
        if isinstance(action.choices, dict):
            parsers = list(action.choices.values())
    return {
        option
        for each in parsers
        for action in each._actions
        for option in action.option_strings
        if action.help != "==SUPPRESS==" and option not in ("-h", "--help")
    }


def test_the_options_of_jobworker_are_those_of_its_parser() -> None:
    page = section(read("reference/commands.md"), "manage.py jobworker")
    shown = {word.split()[0] for word in first_words(page)}
    assert shown == _options_of(jobworker.Command())


def test_the_commands_and_options_of_jobs_are_those_of_its_parser() -> None:
    page = section(read("reference/commands.md"), "manage.py jobs")
    words = first_words(page)
    assert {word.split()[1] for word in words if word.startswith("jobs")} == set(
        jobs._COMMANDS
    )
    options = {word.split()[0] for word in words if word.startswith("--")}
    options |= {"--format", "--database"}  # in the text: all commands take them
    assert options == _options_of(jobs.Command())


def test_the_ids_of_the_checks_are_those_in_the_code() -> None:
    code = "".join(path.read_text() for path in PACKAGE.rglob("*.py"))
    given = set(re.findall(r'id="(django_jobs\.[EW]\d+)"', code))
    assert given
    assert first_words(read("reference/checks.md")) == sorted(given)


def test_the_tree_of_errors_is_that_of_the_module() -> None:
    [(_, tree)] = blocks(read("reference/errors.md"), "text")
    assert tree in str(exceptions.__doc__)


def test_the_signals_are_those_of_the_module() -> None:
    declared = [name for name in vars(signals) if name.startswith(("task_", "worker_"))]
    assert first_words(read("reference/signals.md")) == declared


def test_the_models_are_those_of_the_app() -> None:
    page = read("reference/models.md").partition("## Fields")[0]
    models = apps.get_app_config("django_jobs").get_models()
    assert set(first_words(page)) == {model.__name__ for model in models}


def test_the_fields_of_a_task_are_those_of_its_models() -> None:
    page = section(read("reference/models.md"), "Fields of a task")
    model = apps.get_model("django_jobs", "Task")
    base = next(each for each in model.__mro__ if each.__name__ == "TaskFields")
    common = {field.name for field in base._meta.get_fields()}
    assert set(first_words(page)) == common


def _public(cls: type) -> set[str]:
    return {name for name in vars(cls) if not name.startswith("_")}


def test_the_attributes_of_a_result_are_all_there() -> None:
    words = set(
        re.findall(r"\b\w+\b", " ".join(first_words(read("reference/results.md"))))
    )
    assert _public(results.TaskResult) - words == {"with_record"}


def test_the_attributes_of_a_context_are_all_there() -> None:
    page = read("reference/context.md")
    words = set(re.findall(r"`(?:await )?(\w+)", page))
    inner = {"active", "changed_metadata", "stop"}
    assert _public(context.TaskContext) - words == inner


def test_the_functions_of_control_are_all_there() -> None:
    declared = {
        name
        for name, each in vars(control).items()
        if not name.startswith("_")
        and getattr(each, "__module__", "") == control.__name__
        and not isinstance(each, type)
    }
    shown = {
        word.partition("(")[0] for word in first_words(read("reference/control.md"))
    }
    assert shown >= declared


# -- states and promises -----------------------------------------------------------


def test_the_picture_of_the_states_has_the_moves_of_the_code() -> None:
    svg = ElementTree.parse(DOCS / "explanation/states.svg").getroot()  # noqa: S314
    ids = {element.get("id") for element in svg.iter() if element.get("id")}
    moves = {f"{start}-{end}" for start, ends in MOVES.items() for end in ends}
    assert ids - {"title", "arrow"} == moves | set(State)


def test_the_table_of_the_moves_has_the_moves_of_the_code() -> None:
    page = section(read("explanation/states.md"), "The moves")
    shown = {
        (start, end)
        for row in tables(page)
        for start in re.findall(r"`([A-Z]+)`", row[0])
        for end in re.findall(r"`([A-Z]+)`", row[1])
    }
    assert shown == {(start, end) for start, ends in MOVES.items() for end in ends}


def test_the_table_of_the_states_names_all_of_them() -> None:
    page = read("explanation/states.md").partition("## The moves")[0]
    assert set(first_words(page)) == set(State)


def test_nothing_claims_delivery_exactly_once() -> None:
    for path in [*PAGES, ROOT / "README.md"]:
        assert "exactly-once delivery" not in path.read_text().lower(), path


def test_nobody_is_told_to_install_another_distribution() -> None:
    for path in [*PAGES, ROOT / "README.md"]:
        assert not re.search(r"pip install\s.*django[-_]jobs\b", path.read_text()), path


# -- snippets ----------------------------------------------------------------------


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_snippets_compile(path: Path) -> None:
    for _, text in blocks(path.read_text(), "python"):
        compile(text, str(path), "exec")


@pytest.fixture
def fresh_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the tasks of a page be forgotten after it."""
    monkeypatch.setattr(definitions, "_definitions", dict(definitions._definitions))


@pytest.mark.parametrize(
    "path", sorted((DOCS / "howto").glob("*.md")), ids=lambda path: path.stem
)
@pytest.mark.django_db(transaction=True, databases=["default", "other"])
def test_snippets_of_a_guide_run_one_after_the_other(
    path: Path, fresh_registry: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ModuleType(f"snippets_of_{path.stem}")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for note, text in blocks(path.read_text(), "python"):
        if note != "not run" and _has_what_it_needs(note):
            exec(compile(text, str(path), "exec"), vars(module))  # noqa: S102


def _has_what_it_needs(note: str) -> bool:
    needed = note.removeprefix("needs ")
    if needed == "django_tasks":  # the backport of what later versions bring along
        return django.VERSION < (6, 0) and find_spec(needed) is not None
    return needed != "django.tasks" or django.VERSION >= (6, 0)


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
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def manage(self, *arguments: str) -> str:
        return self.run("manage.py", *arguments)

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
