"""Every order of the statements of two or three jobs on one task."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.simulation.model import Violation
from tests.simulation.mutants import MUTANTS, active
from tests.simulation.races import RACES, race
from tests.simulation.scene import Simulation

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.faults]


@pytest.mark.parametrize("name", RACES)
def test_every_order_ends_well(
    here: Simulation, name: str, record_property: Callable[[str, object], None]
) -> None:
    orders = race(here, RACES[name])
    assert orders > 1
    record_property("figure", f"{name}: {orders} orders")
