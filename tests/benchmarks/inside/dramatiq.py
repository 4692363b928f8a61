"""The actors of Dramatiq on Redis."""

from __future__ import annotations

from typing import Any

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from tests.benchmarks.inside import work as body
from tests.benchmarks.inside.given import GIVEN

broker = RedisBroker(
    url=GIVEN["redis"],
    heartbeat_timeout=GIVEN["lease"] * 1000,
    maintenance_chance=100_000,
)
dramatiq.set_broker(broker)


@dramatiq.actor
def work(key: str, seconds: float = 0.0) -> None:
    body.work(key, seconds)


@dramatiq.actor
def die(key: str) -> None:
    body.die(key)


@dramatiq.actor(max_retries=0)
def fail(key: str, poison: str) -> None:
    body.fail(key, poison)


TASKS = {"work": work, "die": die, "fail": fail}


def enqueue(name: str, args: list[Any]) -> None:
    TASKS[name].send(*args)


def enqueue_many(name: str, calls: list[list[Any]]) -> None:
    for args in calls:
        enqueue(name, args)


def unfinished() -> int:
    """Messages in the queue or delayed; a message stays there until acknowledged."""
    names = ("dramatiq:default.msgs", "dramatiq:default.DQ.msgs")
    return sum(broker.client.hlen(name) for name in names)
