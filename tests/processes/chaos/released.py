"""What only a release that was stopped knew: its tasks are in the queue still."""

from __future__ import annotations

from django_jobs import task


@task
def forgotten(key: str) -> None:
    raise AssertionError("no worker has loaded this")
