"""A worker for all tests of a module; nothing between two empties the tables."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import environment_of_workers
from tests.processes.failpoints.relay import Relay


@pytest.fixture(scope="module")
def transactional_db(django_db_setup: None, django_db_blocker) -> Iterator[None]:
    """Allow the database to a whole module, in place of one test after the other."""
    with django_db_blocker.unblock():
        yield


@pytest.fixture(scope="module")
def relay(
    request: pytest.FixtureRequest,
    transactional_db: None,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Relay]:
    """What the module's ``RULES`` say can happen to the workers of its tests."""
    folder = tmp_path_factory.mktemp("relay")
    relay = Relay(environment_of_workers(), folder, request.module.RULES)
    yield relay
    try:
        relay.stop()
    finally:
        relay.end()
