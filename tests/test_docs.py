"""The documentation says what the code says, and its snippets run."""

from __future__ import annotations

import re
import sys
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
from tests.doc_pages import (
    DOCS,
    PAGES,
    ROOT,
    blocks,
    first_words,
    read,
    section,
    tables,
)

PACKAGE = ROOT / "django_jobs"

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
