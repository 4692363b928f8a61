"""The tables of the queue in Django's admin; for now only to look at."""

from __future__ import annotations

from django_jobs.admin import (
    attempts,
    dead_letters,
    operations,
    queues,
    results,
    rollups,
    schedules,
    tasks,
    workers,
)

__all__ = [
    "attempts",
    "dead_letters",
    "operations",
    "queues",
    "results",
    "rollups",
    "schedules",
    "tasks",
    "workers",
]
