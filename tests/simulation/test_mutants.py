"""The simulation finds the faults that it is there to find."""

from __future__ import annotations

import pytest
from django.db import connection

from tests.simulation.model import Violation
from tests.simulation.mutants import MUTANTS, active
from tests.simulation.play import play
from tests.simulation.scene import Simulation

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.faults,
    pytest.mark.matrix,
]

#: A fault that is not found in so many seeds would not be found in CI.
SEEDS = 2000
#: Faults that take many seeds to show: the races show them at once.
RARE = ("insert",)


@pytest.mark.parametrize("name", sorted(set(MUTANTS) - set(RARE)))
def test_a_fault_of_the_store_is_found(here: Simulation, name: str) -> None:
    mutant = MUTANTS[name]
    if connection.vendor not in mutant.vendors:
        pytest.skip(f"on {' and '.join(mutant.vendors)} only: {mutant.says}")
    with active(mutant), pytest.raises(Violation, match="seed"):
        for seed in range(SEEDS):
            play(here, seed)
