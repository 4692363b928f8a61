"""A process that enqueues and counts for the one who measures, a JSON line per call."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any, TextIO

from tests.benchmarks.inside import unique
from tests.benchmarks.inside.given import GIVEN


def main() -> None:
    answers = _own_output()
    peer = load()
    calls = {
        "enqueue": lambda name, calls: enqueue(peer, name, calls),
        "enqueue_many": lambda name, calls: enqueue_many(peer, name, calls),
        "unfinished": peer.unfinished,
        "unique_in_a_transaction": lambda key: unique.in_a_transaction(peer, key),
        "unique_rolled_back": lambda key: unique.rolled_back(peer, key),
        "unique": lambda key: peer.enqueue_unique(key),
        "make_schedules": lambda names: peer.make_schedules(names),
    }
    for line in sys.stdin:
        request = json.loads(line)
        answers.write(json.dumps(answer(calls[request["call"]], request["args"])))
        answers.write("\n")
        answers.flush()


def _own_output() -> TextIO:
    """Keep standard output for answers; what libraries print goes to the log."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return answers


def load() -> ModuleType:
    """Return the module of the peer, with Django set up where it needs that."""
    if GIVEN["databases"]:
        import django  # not in every environment

        django.setup()
    return import_module(f"tests.benchmarks.inside.{GIVEN['module']}")


def answer(call: Callable[..., Any], args: list[Any]) -> dict[str, Any]:
    if GIVEN["databases"]:
        from django.db import close_old_connections

        close_old_connections()
    try:
        return {"answer": call(*args)}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}


def enqueue(peer: ModuleType, name: str, calls: list[list[Any]]) -> dict[str, Any]:
    """Enqueue one by one; say which keys were accepted, and how others failed."""
    accepted, errors, start = [], [], time.monotonic()
    for args in calls:
        try:
            peer.enqueue(name, args)
        except Exception as error:
            errors.append(f"{type(error).__name__}: {error}")
        else:
            accepted.append(args[0])
    seconds = time.monotonic() - start
    return {"accepted": accepted, "errors": errors, "seconds": seconds}


def enqueue_many(peer: ModuleType, name: str, calls: list[list[Any]]) -> dict[str, Any]:
    start = time.monotonic()
    peer.enqueue_many(name, calls)
    seconds = time.monotonic() - start
    return {"accepted": [args[0] for args in calls], "errors": [], "seconds": seconds}


if __name__ == "__main__":
    main()
