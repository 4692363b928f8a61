"""What is to be known about a peer, and nothing that depends on its being installed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

#: Seconds after which a silent worker counts as dead, wherever that can be set; the
#: longest task of a scenario is shorter.
LEASE = 20
#: Seconds that a stopping worker may take before whoever started it kills it, and what
#: it is told where it can be told.
GRACE = 10
INNER_GRACE = 5

#: The command line of a worker of so many processes: one command, or several.
Commands = Callable[[int], list[list[str]]]


@dataclass(frozen=True, kw_only=True)
class Peer:
    """One peer: each command starts with a program of its environment."""

    name: str
    distribution: str
    #: What is installed, for the package index; ``{root}`` is this checkout.
    requirements: tuple[str, ...]
    #: Which other versions are worth showing.
    companions: tuple[str, ...] = ()
    #: The name of its module in ``tests.benchmarks.inside``.
    module: str
    #: Where its tasks are kept, and whether it needs Django's database beside that.
    on_redis: bool = False
    uses_django: bool = True
    has_sqlite: bool = False
    #: Django's settings, as JSON; ``{redis}`` and ``{processes}`` are filled in.
    settings: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    commands: Commands
    #: What is started beside the workers when there are schedules.
    scheduler: tuple[str, ...] = ()
    schedules_in_code: bool = False
    #: What was configured and why, one sentence each, for the documentation.
    configuration: tuple[str, ...]
    #: Scenarios that it cannot take part in, and what shows that.
    missing: dict[str, str] = field(default_factory=dict)


def django(*arguments: str) -> list[str]:
    """Return the command line of a management command."""
    return ["python", "-m", "django", *arguments]
