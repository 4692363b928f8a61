"""Whatever the order of statements and whatever fails, nothing is lost or doubled."""

from __future__ import annotations

import time

import pytest
from django.db import connection

from tests.simulation.play import play
from tests.simulation.scene import Simulation

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.faults]

#: Parts that processes of pytest share among them.
PARTS = 8
#: Seeds in all where a statement costs no round trip; elsewhere seconds in all.
SEEDS, SECONDS = 2000, 40.0


@pytest.mark.parametrize("part", range(PARTS))
def test_seeds(here: Simulation, part: int) -> None:
    seeds = range(part * SEEDS // PARTS, (part + 1) * SEEDS // PARTS)
    until = time.monotonic() + SECONDS / PARTS
    played = 0
    for seed in seeds:
        if connection.vendor != "sqlite" and time.monotonic() > until:
            break
        play(here, seed)
        played += 1
    assert played > 0
    assert played == len(seeds) or connection.vendor != "sqlite"


@pytest.mark.parametrize("seed", [3, 130, 328])
def test_a_seed_plays_the_same_again(here: Simulation, seed: int) -> None:
    first = play(here, seed).lines()
    assert len(first) > 50
    assert play(here, seed).lines() == first
