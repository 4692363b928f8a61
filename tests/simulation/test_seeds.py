"""Whatever the order of statements and whatever fails, nothing is lost or doubled."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from django.db import connection

from tests.simulation.play import play
from tests.simulation.scene import Simulation

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.faults,
    pytest.mark.matrix(whole="sqlite"),
]

#: Parts that processes of pytest share among them.
PARTS = 8
#: Seeds in all where a statement costs no round trip; elsewhere seconds in all, and how
#: many seeds at least.
SEEDS, SECONDS, LEAST = 2000, 40.0, 40


@pytest.mark.parametrize("part", range(PARTS))
def test_seeds(
    here: Simulation, part: int, record_property: Callable[[str, object], None]
) -> None:
    seeds = range(part * SEEDS // PARTS, (part + 1) * SEEDS // PARTS)
    until = time.monotonic() + SECONDS / PARTS
    played = 0
    for seed in seeds:
        is_over = connection.vendor != "sqlite" and time.monotonic() > until
        if is_over and played >= LEAST // PARTS:
            break
        play(here, seed)
        played += 1
    record_property("figure", f"simulation, part {part}: {played} seeds")
    assert played == len(seeds) or connection.vendor != "sqlite"


@pytest.mark.parametrize("seed", [3, 130, 328])
def test_a_seed_plays_the_same_again(here: Simulation, seed: int) -> None:
    first = play(here, seed).lines()
    assert len(first) > 50
    assert play(here, seed).lines() == first
