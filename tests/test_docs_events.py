"""The page of the events lists those in the source, with their levels and fields."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

from django_jobs import events
from tests.doc_pages import ROOT, read, tables

PACKAGE = ROOT / "django_jobs"

#: Where the name of an event is among the arguments of what logs it: a place or a word.
NAMES: dict[str, tuple[int | str, ...]] = {
    "log": (2,),
    "say": (1,),
    "_say": (0,),
    "to_the_death": (0,),
    "Outage": (1, 2, "first"),
}
#: Modules that pass on a name which they were given by one of these calls.
PASSING_ON = {
    *("worker/doom.py", "worker/maintenance.py", "worker/outage.py"),
    *("worker/outcomes.py", "worker/shutdown.py"),
}
#: What tells how to log, not what.
_NO_FIELDS = {"also", "exc_info", None}
_LEVEL = re.compile(r"logging\.([A-Z]+)")


class Logged(NamedTuple):
    """An event as some place in the source logs it."""

    name: str
    #: Empty where the call does not tell.
    level: str
    #: Those that the call names.
    fields: set[str]


@cache
def _calls() -> list[tuple[str, ast.Call]]:
    return [
        (path.relative_to(PACKAGE).as_posix(), node)
        for path in sorted(PACKAGE.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
    ]


def _called(call: ast.Call) -> str:
    return getattr(call.func, "attr", getattr(call.func, "id", ""))


def _texts(node: ast.AST) -> list[str]:
    found = [each.value for each in ast.walk(node) if isinstance(each, ast.Constant)]
    return [each for each in found if isinstance(each, str)]


def _argument(call: ast.Call, where: int | str) -> ast.expr | None:
    if isinstance(where, str):
        return next((each.value for each in call.keywords if each.arg == where), None)
    return call.args[where] if len(call.args) > where else None


def _logged() -> Iterator[Logged]:
    for _, call in _calls():
        level = _LEVEL.search(ast.unparse(call))
        fields = {str(each.arg) for each in call.keywords if each.arg not in _NO_FIELDS}
        if _called(call) == "Outage":
            fields = set()  # those of its beginning are not those of its end
        for where in NAMES.get(_called(call), ()):
            for name in _texts(_argument(call, where) or ast.Pass()):
                yield Logged(name, level[1] if level else "", fields)
    # What an outage is called by default, and what is logged without our help.
    outage = ast.parse((PACKAGE / "worker/outage.py").read_text())
    for node in ast.walk(outage):
        if isinstance(node, ast.arguments):
            for default in node.defaults:
                yield from (Logged(each, "", set()) for each in _texts(default) if each)
    yield Logged("uncaught", "CRITICAL", set())


def _shown() -> dict[str, list[str]]:
    rows = {row[0].strip("`"): row[1:] for row in tables(read("reference/events.md"))}
    assert all(len(row) == 3 for row in rows.values())
    return rows


def test_the_events_are_those_of_the_source() -> None:
    assert set(_shown()) == {each.name for each in _logged()}


def test_each_event_is_listed_once() -> None:
    names = [row[0] for row in tables(read("reference/events.md"))]
    assert sorted(names) == sorted(set(names))


def test_no_event_has_a_name_that_its_place_in_the_source_does_not_tell() -> None:
    hidden = {
        path
        for path, call in _calls()
        if ast.unparse(call.func) == "events.log" and not _texts(call.args[2])
    }
    assert hidden == PASSING_ON
    # Nor a line that is no event: one is, of what nobody caught.
    plain = [
        path
        for path, call in _calls()
        if re.fullmatch(
            r"logger\.(debug|info|warning|error|exception|critical)",
            ast.unparse(call.func),
        )
    ]
    assert plain == ["worker/logs.py"]


def test_the_levels_and_fields_of_an_event_are_those_of_the_source() -> None:
    shown = _shown()
    for each in _logged():
        level, fields, _ = shown[each.name]
        assert each.level in level, each
        told = set(re.findall(r"`(\w+)`", fields))
        if "traceback" in fields:
            told.add("traceback")
        in_text = {events._IN_TEXT.get(field, field) for field in each.fields}
        assert in_text <= told, each
