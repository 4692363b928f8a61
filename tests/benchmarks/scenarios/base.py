"""What a scenario is, and what comes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from tests.benchmarks.bench import Bench, Worker
from tests.benchmarks.counting import Count


@dataclass(frozen=True)
class Result:
    """What one run of one scenario came to."""

    #: The text of the cell, made of the numbers.
    text: str
    #: Whether something went wrong that a user would call a fault; it is run again.
    failed: bool
    #: The numbers themselves.
    details: dict[str, Any]
    #: Not when something of ours went wrong: that says nothing of the peer.
    is_measured: bool = True


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One row of the table."""

    name: str
    title: str
    run: Callable[[Bench], Result]
    on_sqlite: bool = False
    #: Names of the schedules that are declared in code, where schedules are code.
    schedules: tuple[str, ...] = ()


def result(count: Count, *parts: str, failed: bool = False, **details: Any) -> Result:
    """Make the result of counted tasks: the count in words, and what else was seen."""
    words = "; ".join(part for part in (count.words(), *parts) if part)
    return Result(words, failed or not count.is_whole, {**asdict(count), **details})


def seconds(value: float | None) -> str:
    """Return a time in words, none when it never came."""
    return "never" if value is None else f"{value:.1f} s"


def exits(worker: Worker) -> str:
    """Return how often the worker ended by itself, empty when it did not."""
    return f"worker exited {times(worker.exits)}" if worker.exits else ""


def times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"
