"""Every order of the statements of two or three jobs on one task."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.simulation.model import Violation
from tests.simulation.mutants import MUTANTS, active
from tests.simulation.races import RACES, race
from tests.simulation.scene import Simulation

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.faults,
    pytest.mark.matrix,
]

#: Races that show a fault of the store: where a claim is several statements, that too.
SHOWN = {
    "atomic": "complete atomically, rescue",
    "insert": "insert again, complete",
    "revoke": "complete, revoke",
    "claim": "claim, claim",
}


@pytest.mark.parametrize("name", RACES)
def test_every_order_ends_well(
    here: Simulation, name: str, record_property: Callable[[str, object], None]
) -> None:
    orders = race(here, RACES[name])
    assert orders > 1
    record_property("figure", f"{name}: {orders} orders")


#: One statement claims on the others.
ON_MYSQL = pytest.mark.matrix(among=["mariadb"])


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=ON_MYSQL if name == "claim" else ()) for name in SHOWN],
)
def test_a_race_shows_a_fault_of_the_store(
    here: Simulation, name: str, requires: Callable[..., None]
) -> None:
    if name == "claim":
        requires("mysql")
    with active(MUTANTS[name]), pytest.raises(Violation, match="order"):
        race(here, RACES[SHOWN[name]])
