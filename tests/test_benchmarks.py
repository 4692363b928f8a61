"""The scoreboard counts rightly, and runs against ourselves, without any peer."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks import table
from tests.benchmarks.__main__ import joined
from tests.benchmarks.bench import Bench, fill
from tests.benchmarks.counting import Notes, count
from tests.benchmarks.environments import Environment
from tests.benchmarks.peers import PEERS
from tests.benchmarks.processes import session_of
from tests.benchmarks.runner import sqlite
from tests.benchmarks.scenarios import SCENARIOS
from tests.benchmarks.scenarios.dying import idle_children

KEYS = ["a", "b", "c"]


@pytest.fixture
def notes(tmp_path: Path) -> Callable[..., Notes]:
    def write(*lines: str, end: str = "\n") -> Notes:
        path = tmp_path / "notes"
        path.write_text("\n".join(lines) + end)
        return Notes.read(path)

    return write


# -- counting ----------------------------------------------------------------------


def test_a_task_that_started_twice_and_ended_is_finished_and_ran_twice(
    notes: Callable[..., Notes],
) -> None:
    read = notes("start a 1 1 1.0", "start a 2 2 5.0", "end a 2 2 6.0")
    counted = count(read, ["a"], 0, 1.0)
    assert (counted.finished, counted.twice, counted.extra) == (1, 1, 1)
    assert counted.words() == "all 1 finished, 1 twice"


def test_what_the_queue_no_longer_has_never_finished_and_the_rest_is_stuck(
    notes: Callable[..., Notes],
) -> None:
    read = notes("start a 1 1 1.0", "end a 1 1 2.0", "start b 1 1 3.0")
    counted = count(read, KEYS, 1, 60.2)
    assert (counted.lost, counted.stuck) == (1, 1)
    assert (
        counted.words() == "1 of 3 never finished, 1 of 3 stuck (waited 60 s), 0 twice"
    )


def test_a_queue_that_does_not_answer_is_not_said_to_have_lost_anything(
    notes: Callable[..., Notes],
) -> None:
    counted = count(notes("start a 1 1 1.0"), KEYS, None, 9.0)
    assert (counted.lost, counted.stuck) == (0, 3)


def test_the_line_that_is_just_being_written_is_left_for_later(
    notes: Callable[..., Notes],
) -> None:
    read = notes("start a 1 1 1.0", "end a 1", end="")
    assert [note.event for note in read.lines] == ["start"]


def test_work_goes_on_with_the_first_start_after_a_moment(
    notes: Callable[..., Notes],
) -> None:
    read = notes("start a 1 1 1.0", "start b 1 1 4.5", "start c 1 1 9.0")
    assert read.first_start_after(4.0, KEYS) == 0.5
    assert read.first_start_after(9.0, KEYS) is None
    assert read.running(KEYS) == set(KEYS)


# -- the table ---------------------------------------------------------------------


def found(*runs: tuple[str, bool]) -> dict[str, object]:
    said = [{"text": text, "failed": failed, "measured": True} for text, failed in runs]
    return {"peer": "RQ", "scenario": "idle", "runs": said}


def test_a_cell_says_in_how_many_runs_something_failed() -> None:
    assert table.cell(found(("all 3 finished", False))) == "all 3 finished"
    twice = found(("lost 1", True), ("lost 2", True), ("all 3 finished", False))
    assert table.cell(twice) == "**lost 1** (2 of 3 runs)"


def test_where_we_failed_ourselves_nobody_is_blamed() -> None:
    cell: Any = found(("all 3 finished", False), ("not measured: no answer", False))
    cell["runs"][1]["measured"] = False
    assert table.cell(cell) == "not measured: no answer"


@pytest.mark.parametrize("peer", ["RQ", "django-jobworker"])
def test_what_somebody_has_not_is_not_offered(peer: str) -> None:
    cell = {"peer": peer, "scenario": "sqlite", "missing": "there is a reason"}
    assert table.cell(cell) == "not offered"
    assert table.cell(None) == "not run"


def test_peers_name_only_scenarios_that_there_are() -> None:
    named = {scenario for peer in PEERS.values() for scenario in peer.missing}
    assert named <= set(SCENARIOS)


# -- a run -------------------------------------------------------------------------


def test_places_are_filled_at_any_depth() -> None:
    assert fill({"a": ["{x}", ("{y}", "z")]}, {"{x}": 1}) == {"a": [1, ["{y}", "z"]]}


@pytest.fixture
def bench(tmp_path: Path, requires: Callable[..., None]) -> Iterator[Bench]:
    """Ourselves on a SQLite file, in the environment that runs the tests."""
    requires("sqlite")  # once is enough
    with Bench(
        PEERS["django-jobworker"],
        Environment(Path(sys.executable).parent),
        tmp_path / "bench",
        databases=sqlite(tmp_path / "db"),
        processes=1,
    ) as bench:
        bench.migrate()
        yield bench


@pytest.mark.processes
def test_a_scenario_runs_against_ourselves_and_leaves_nothing_behind(
    bench: Bench,
) -> None:
    seen: set[int] = set()
    start = bench.start

    def remembered(*args):
        worker = start(*args)
        seen.update(worker.sessions)
        return worker

    bench.start = remembered
    result = idle_children(bench)
    assert not result.failed, result
    assert result.details["killed"] == 1
    bench.__exit__()
    assert seen
    assert not [pid for session in seen for pid in session_of(session)]


# -- the page ------------------------------------------------------------------------


def test_results_of_two_runs_become_one_with_the_dates_of_both(tmp_path: Path) -> None:
    def run(date: str, text: str, peer: str) -> Path:
        cell = {**found((text, False)), "date": date, "peer": peer}
        about = {"machine": "", "postgresql": "", "redis": "", "command": f"run {peer}"}
        path = tmp_path / date
        path.write_text(json.dumps({**about, "peers": {peer: {}}, "cells": [cell]}))
        return path

    paths = [
        run("2026-01-01", "old", "RQ"),
        run("2026-01-02", "other", "Celery"),
        run("2026-01-03", "new", "RQ"),
    ]
    text = table.about(one := joined(paths))
    assert [cell["runs"][0]["text"] for cell in one["cells"]] == ["new", "other"]
    assert "Run on 2026-01-02 to 2026-01-03" in text
    assert "$ run RQ\n$ run Celery" in text
