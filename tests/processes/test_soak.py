"""A short soak, and what its judge finds in the samples of a long one."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from tests.processes import soak
from tests.processes.chaos.hosts import Host
from tests.processes.soak import Place, Sample, growth

HOUR = 3600.0


def samples(
    seconds: float, *, memory: float = 0.0, descriptors: float = 0, threads: float = 0
) -> list[Sample]:
    """Return the samples of a worker that grows by so much an hour."""
    times = [seconds * number / 100 for number in range(101)]
    return [
        Sample(
            at,
            50 + memory * at / HOUR,
            20 + round(descriptors * at / HOUR),
            5 + round(threads * at / HOUR),
        )
        for at in times
    ]


@pytest.mark.parametrize(
    ("words", "taken"),
    [
        ("memory grew by 1.20 MB an hour", samples(HOUR, memory=1.2)),
        ("memory grew by 1.20 MB an hour", samples(600, memory=1.2)),
        ("memory grew by", samples(60, memory=180)),
        ("descriptors grew", samples(HOUR, descriptors=10)),
        ("threads grew", samples(HOUR, threads=4)),
    ],
)
def test_growth_is_found(words: str, taken: list[Sample]) -> None:
    assert words in " ".join(growth(taken)["problems"])


@pytest.mark.parametrize(
    "taken", [samples(HOUR, memory=0.8), samples(60, memory=60), samples(599)]
)
def test_what_stays_flat_is_no_problem(taken: list[Sample]) -> None:
    assert growth(taken)["problems"] == []


class Childless:
    """A worker whose children are just being replaced."""

    def children(self) -> list[int]:
        return []


def test_no_child_is_killed_where_there_is_none() -> None:
    place = Place(*[cast(Any, None)] * 3, random.Random(1))
    assert not soak.kill_some_child(place, cast(Host, Childless()))


@pytest.mark.faults
def test_a_short_soak_leaves_nothing_and_stays_flat(
    tmp_path: Path,
    requires: Callable[..., None],
    record_property: Callable[[str, object], None],
) -> None:
    requires("sqlite")
    words = ["--seconds", "10", "--starts", "4", "--seed", "1"]
    with (tmp_path / "progress.txt").open("wb") as told:
        done = subprocess.run(
            [sys.executable, "-m", "tests.processes.soak", *words],
            cwd=Path(__file__).parents[2],
            stdout=subprocess.PIPE,
            stderr=told,
            timeout=200,
            check=False,
        )
    assert done.stdout, (tmp_path / "progress.txt").read_text()
    record_property("figure", done.stdout.decode().strip())
    report = json.loads(done.stdout)
    assert report["problems"] == []
    assert (report["starts"], done.returncode) == (4, 0)
    assert report["tasks"] > 50
