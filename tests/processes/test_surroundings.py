"""Tasks that change the state of their process: the next one finds it as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from django_jobs.definitions import TaskDefinition
from tests.processes import wrecking
from tests.processes.conftest import StartWorker
from tests.processes.harness import census

pytestmark = pytest.mark.django_db(transaction=True)

Definition = TaskDefinition[..., Any]


def _left_by(
    kinds: list[str], change: Definition, tell: Definition, folder: Path
) -> dict[str, dict[str, tuple[str, str]]]:
    """Return what each kind of change left behind: (before, after)."""
    before = tell.enqueue().get(timeout=20)
    pairs = [
        (kind, change.enqueue(kind, str(folder / kind)), tell.enqueue())
        for kind in kinds
    ]
    left = {}
    for kind, changed, told in pairs:
        assert changed.get(timeout=30) == kind
        after = told.get(timeout=30)
        differing = {key for key in before if before[key] != after[key]}
        if differing:
            left[kind] = {key: (before[key], after[key]) for key in differing}
    return left


def test_a_task_finds_the_process_as_it_was(
    start_worker: StartWorker, tmp_path: Path
) -> None:
    worker = start_worker("--processes", "1")
    kinds = [*wrecking.CHANGES, *wrecking.SIGNALS, *wrecking.BREAKS]
    left = _left_by(kinds, wrecking.change, wrecking.tell_state, tmp_path)
    # The process is among what is told: none of this was worth another one.
    assert left == {}
    assert "child_recycled" not in worker.output()
    assert census() == {"tasks": 0, "results": 2 * len(kinds) + 1, "dead letters": 0}


def test_a_coroutine_finds_the_process_as_it_was(
    start_worker: StartWorker, tmp_path: Path
) -> None:
    start_worker("--processes", "1", "--coroutines", "1")
    kinds = [*wrecking.CHANGES, *wrecking.BREAKS]
    change, tell = wrecking.async_change, wrecking.async_tell_state
    assert _left_by(kinds, change, tell, tmp_path) == {}
