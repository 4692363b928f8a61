"""All that can go wrong. Each fault is a class that strikes and heals."""

from __future__ import annotations

from typing import Any

from tests.processes.chaos.faults import clients, clocks, kills, network, servers
from tests.processes.chaos.faults.base import Fault

MODULES: list[Any] = [kills, servers, network, clients, clocks]
FAULTS: dict[str, type[Fault]] = {
    fault.name(): fault for module in MODULES for fault in module.FAULTS
}
