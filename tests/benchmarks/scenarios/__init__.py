"""The scenarios, in the order of the table."""

from __future__ import annotations

from tests.benchmarks.scenarios import (
    backlog,
    data,
    dying,
    outages,
    pausing,
    schedules,
    sqlite,
    stopping,
    unique,
)
from tests.benchmarks.scenarios.base import Scenario

SCENARIOS: dict[str, Scenario] = {
    scenario.name: scenario
    for module in (
        dying,
        stopping,
        pausing,
        outages,
        data,
        schedules,
        unique,
        sqlite,
        backlog,
    )
    for scenario in module.SCENARIOS
}
