"""The tasks of RQ: plain functions in a queue on Redis."""

from __future__ import annotations

from typing import Any

import redis
from rq import Queue, Retry
from rq.exceptions import DuplicateJobError

from tests.benchmarks.inside import work as body
from tests.benchmarks.inside.given import GIVEN

TASKS = {"work": body.work, "die": body.die, "fail": body.fail}

client = redis.Redis.from_url(GIVEN["redis"])
queue = Queue(connection=client)


def options(name: str) -> dict[str, Any]:
    """Without a retry, RQ gives up a task whose worker died."""
    return {} if name == "fail" else {"retry": Retry(max=3)}


def enqueue(name: str, args: list[Any]) -> None:
    queue.enqueue(TASKS[name], args=args, **options(name))


def enqueue_many(name: str, calls: list[list[Any]]) -> None:
    for first in range(0, len(calls), 1000):
        queue.enqueue_many(
            [
                Queue.prepare_data(TASKS[name], args=args, **options(name))
                for args in calls[first : first + 1000]
            ]
        )


def enqueue_unique(key: str) -> bool:
    try:
        queue.enqueue(body.work, key, job_id=key, unique=True)
    except DuplicateJobError:
        return False
    return True


def unfinished() -> int:
    taken = client.llen(queue.intermediate_queue.key)
    started = queue.started_job_registry.get_job_count(cleanup=False)
    scheduled = queue.scheduled_job_registry.get_job_count(cleanup=False)
    return len(queue) + taken + started + scheduled
