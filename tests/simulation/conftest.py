"""A database for simulations: opened once per module, and emptied by each scene."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pytest_django import DjangoDbBlocker

from tests.simulation.scene import Simulation, simulation


@pytest.fixture(scope="module")
def here(
    django_db_setup: None, django_db_blocker: DjangoDbBlocker
) -> Iterator[Simulation]:
    with django_db_blocker.unblock(), simulation() as opened:
        yield opened


@pytest.fixture
def _django_db_helper(here: Simulation) -> None:
    """Leave the tables alone between two tests."""
