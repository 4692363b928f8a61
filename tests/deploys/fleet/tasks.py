"""The tasks of the project; some of them differ from release to release."""

from __future__ import annotations

import os

from django_jobs import task

FEATURES = os.environ["FLEET_FEATURES"].split()
RELEASE = os.environ["FLEET_RELEASE"]


def note(path: str, key: str) -> None:
    """Write which release ran what; the line is there as soon as this returns."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, f"{RELEASE} {key}\n".encode())
    os.close(descriptor)


@task
def plain(path: str, key: str) -> str:
    note(path, key)
    return RELEASE


@task(atomic=True)
def atomic(path: str, key: str) -> str:
    note(path, key)
    return RELEASE


@task(max_attempts=1)
def fail(path: str, key: str) -> None:
    note(path, key)
    raise ValueError("as it is meant to")


@task(max_attempts=2, backoff=[0.2], takes_context=True)
def retried(context, path: str, key: str) -> str:
    if context.attempt == 1:
        raise ConnectionError("not the first time")
    note(path, key)
    return RELEASE


if "novelty" in FEATURES:

    @task
    def novelty(path: str, key: str) -> str:
        note(path, key)
        return RELEASE


if "signature" in FEATURES:

    @task(max_attempts=20, backoff=[0.5])
    def greet(path: str, key: str, *, loudly: bool = False) -> str:
        note(path, key)
        return f"Hello {key}{'!' * loudly}"

else:

    @task(max_attempts=20, backoff=[0.5])
    def greet(path: str, key: str) -> str:
        note(path, key)
        return f"Hello {key}"


if "renamed" in FEATURES:

    @task
    def scale(path: str, key: str) -> str:
        note(path, f"scale {key}")
        return RELEASE

    @task(name="fleet.tasks.resize")
    def resize(path: str, key: str) -> str:
        return scale.call(path, key)

elif "removed" not in FEATURES:

    @task
    def resize(path: str, key: str) -> str:
        note(path, f"resize {key}")
        return RELEASE
