"""Goes through the peers and the scenarios, one after the other."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from subprocess import CalledProcessError
from typing import Any

from tests.benchmarks.bench import Bench
from tests.benchmarks.environments import Environment, install
from tests.benchmarks.peers.base import Peer
from tests.benchmarks.scenarios.base import Result, Scenario
from tests.benchmarks.servers import PostgreSQL, Redis, Server

TEMPLATE = "template_of_the_peer"


class Ground:
    """The servers of a run, and an empty place on them for each scenario."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.postgresql = PostgreSQL(folder / "postgresql")
        self.redis = Redis(folder / "redis")
        self._numbers = 0

    def __enter__(self) -> Ground:
        self.postgresql.start()
        self.redis.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.postgresql.stop(self.postgresql.crash)
        self.redis.stop(self.redis.crash)

    def prepare(self, peer: Peer, environment: Environment) -> None:
        """Make the tables of a peer once; scenarios get copies."""
        if peer.uses_django:
            database = self.postgresql.create_database(TEMPLATE)
            with self._bench(peer, environment, databases=database) as bench:
                bench.migrate()

    def bench(self, peer: Peer, environment: Environment, scenario: Scenario) -> Bench:
        """Return empty ground for one scenario."""
        self.redis.empty()
        server: Server = self.redis if peer.on_redis else self.postgresql
        if scenario.on_sqlite:
            return self._on_sqlite(peer, environment)
        database = None
        if peer.uses_django:
            database = self.postgresql.create_database("scenario", TEMPLATE)
        return self._bench(
            peer,
            environment,
            server=server,
            databases=database,
            schedules=scenario.schedules,
        )

    def _on_sqlite(self, peer: Peer, environment: Environment) -> Bench:
        bench = self._bench(
            peer, environment, databases=sqlite(self.folder / f"db{self._numbers}")
        )
        bench.migrate()
        return bench

    def _bench(self, peer: Peer, environment: Environment, **where: Any) -> Bench:
        self._numbers += 1
        folder = self.folder / "scenarios" / str(self._numbers)
        return Bench(peer, environment, folder, redis=self.redis.url, **where)


def sqlite(path: Path) -> dict[str, Any]:
    """Return the settings of a file, as our guide and Django's advise."""
    pragmas = "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL"
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": str(path),
        "OPTIONS": {
            "init_command": pragmas,
            "timeout": 20,
            "transaction_mode": "IMMEDIATE",
        },
    }


class Run:
    """One run of the scoreboard: what it was given, and what it came to."""

    def __init__(
        self, cache: Path, python: str, folder: Path, *, repeats: int = 0
    ) -> None:
        self.cache, self.python, self.repeats = cache, python, repeats
        self.ground = Ground(folder)

    def go(
        self, peers: Sequence[Peer], scenarios: Sequence[Scenario]
    ) -> Iterator[dict[str, Any]]:
        """Yield all that was found, after each cell."""
        with self.ground:
            found: dict[str, Any] = {**self._about(), "peers": {}, "cells": []}
            for peer in peers:
                environment = install(peer, self.cache, self.python)
                names = (peer.distribution, *peer.companions)
                found["peers"][peer.name] = environment.versions(*names)
                self.ground.prepare(peer, environment)
                for scenario in scenarios:
                    found["cells"].append(self._cell(peer, environment, scenario))
                    yield found

    def _about(self) -> dict[str, Any]:
        return {
            "machine": machine(),
            "postgresql": self.ground.postgresql.version(),
            "redis": self.ground.redis.version(),
        }

    def _cell(
        self, peer: Peer, environment: Environment, scenario: Scenario
    ) -> dict[str, Any]:
        today = datetime.now(UTC).date().isoformat()
        cell = {"peer": peer.name, "scenario": scenario.name, "date": today}
        if scenario.name in peer.missing:
            return {**cell, "missing": peer.missing[scenario.name]}
        runs: list[dict[str, Any]] = []
        while len(runs) <= self.repeats:
            start = time.monotonic()
            result = attempt(self.ground, peer, environment, scenario)
            took = round(time.monotonic() - start)
            tell(f"{peer.name}, {scenario.name}, {took} s: {result.text}")
            said = {"text": result.text, "failed": result.failed, "took": took}
            runs.append(
                {**said, "details": result.details, "measured": result.is_measured}
            )
        return {**cell, "runs": runs}


def attempt(
    ground: Ground, peer: Peer, environment: Environment, scenario: Scenario
) -> Result:
    """Run a scenario once; where we failed ourselves, say so, and blame nobody."""
    try:
        with ground.bench(peer, environment, scenario) as bench:
            return scenario.run(bench)
    except (TimeoutError, EOFError, RuntimeError, CalledProcessError) as error:
        return Result(f"not measured: {error}", False, {}, is_measured=False)


def machine() -> str:
    """Return what kind of machine it is."""
    release = platform.freedesktop_os_release()["PRETTY_NAME"]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores, {memory:.0f} GiB, {release}"


def tell(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
