"""The site that is to be broken: a database, hosts with workers, producers."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from io import StringIO
from typing import Any

from django.core.management import CommandError, call_command
from django.db import connection

from tests.processes.chaos import audit
from tests.processes.chaos.clocks import Clocks
from tests.processes.chaos.hosts import (
    Death,
    Host,
    Killing,
    Program,
    can_isolate,
    env_of,
    isolated,
    worker_command,
)
from tests.processes.chaos.journal import Journal
from tests.processes.chaos.network.network import Network
from tests.processes.chaos.network.taps import MySQLTap, PostgreSQLTap
from tests.processes.chaos.nursery import Nursery
from tests.processes.chaos.servers import bouncer
from tests.processes.chaos.servers.base import Address, Server
from tests.processes.chaos.servers.postgresql import PostgreSQL

#: Settings of the workers, in seconds: a lease that is over within a run.
LEASE = 6.0
#: Seconds within which the tasks of a dead worker are taken back after its lease.
RESCUE = 5.0
TIMES = {"JOBS_LEASE": str(LEASE), "JOBS_HEARTBEAT": "1"}
#: Slots of a worker: processes, and tasks that each of them runs at a time.
PROCESSES, THREADS, COROUTINES = 2, 1, 4
SLOTS = PROCESSES * (THREADS + COROUTINES)
OPTIONS = [
    *("--processes", str(PROCESSES), "--threads", str(THREADS)),
    *("--coroutines", str(COROUTINES), "--shutdown-timeout", "5"),
]
#: Seconds in which all workers start, and each has run something.
START = 90.0
#: The way of all producers to the database, and of a pooler.
PRODUCERS, POOLER = "producers", "pooler"


@dataclass(frozen=True, slots=True)
class Size:
    """How large the site is, and how busy."""

    workers: int
    producers: int
    #: Seconds between two calls of a producer, on average.
    pause: float
    seed: str


class Site:
    """Starts everything, keeps it going, and stops it."""

    def __init__(
        self, nursery: Nursery, server: Server, size: Size, journal: Journal
    ) -> None:
        self.nursery = nursery
        self.server = server
        self.size = size
        self.journal = journal
        self.network = Network(
            PostgreSQLTap if server.kind == "postgresql" else MySQLTap
        )
        self.clocks = Clocks(nursery)
        self.isolates = can_isolate()
        self.bouncer: bouncer.Bouncer | None = None
        self.hosts: list[Host] = []
        self.producers: list[Program] = []
        self.deaths: list[Death] = []
        self.killings: list[Killing] = []
        #: What was done, by kind: killed_children, server_crashes, ...
        self.counts: Counter[str] = Counter()
        #: The slowest of its kind, in seconds.
        self.slowest: dict[str, float] = {}
        #: What the faults found wrong by themselves.
        self.findings: list[str] = []
        #: What is not tried here, and why not.
        self.left_out: dict[str, list[str]] = defaultdict(list)

    # -- life ------------------------------------------------------------------------

    def build(self) -> None:
        """Make the ways to the database, and who goes them."""
        if self.server.has_network:
            self.network.start()
        for number in range(1, self.size.workers + 1):
            command = worker_command(name := f"worker{number}", *OPTIONS)
            # The first worker can be seen by one that is started after it on the
            # same host; the others are on hosts of their own.
            command = isolated(command) if number > 1 and self.isolates else command
            settings = self._way_of(name)
            self.hosts.append(
                Host(self.nursery, name, command, self._env(name, settings) | TIMES)
            )
        if self._can_pool():
            self._add_pooled_host()
        self.journal.workers = [host.name for host in self.hosts]
        settings = self._way_of(PRODUCERS)
        for number in range(1, self.size.producers + 1):
            self.producers.append(self._producer(f"producer{number}", settings))

    def start(self) -> None:
        for host in self.hosts:
            host.start()
        self._must(lambda: all(host.is_ready for host in self.hosts), "workers start")
        for producer in self.producers:
            producer.start()
        begin = time.monotonic()
        self._must(
            lambda: not self.idle_since(begin), "every worker comes to an end of a task"
        )

    def _must(self, what: Callable[[], object], words: str) -> None:
        if not self.wait_for(what, START):
            raise RuntimeError(f"not within {START:g} s: {words}")

    def idle_since(self, since: float) -> set[str]:
        """Return the hosts that have ended nothing that they began since then."""
        begun, at_work = set(), set()
        for line in audit.read_runs(self.nursery.folder / audit.RUNS):
            if line.event == "start" and line.time >= since:
                begun.add((line.key, line.lease))
            if line.event == "end" and (line.key, line.lease) in begun:
                at_work.add(line.host)
        return {host.name for host in self.hosts} - at_work

    def stop_pooler(self) -> None:
        if self.bouncer is not None:
            self.bouncer.stop()
            self.bouncer = None

    def close(self) -> None:
        self.stop_pooler()
        self.network.close()

    def start_checkpoints(self) -> subprocess.Popen[bytes]:
        """Start a client of SQLite that checkpoints all the time."""
        path = self.server.settings([])["NAME"]
        command = [sys.executable, "-m", "tests.processes.chaos.checkpoint", path]
        return self.nursery.start(command, log=self.nursery.folder / "checkpoint.log")

    # -- parts -----------------------------------------------------------------------

    def _way_of(self, name: str) -> dict[str, Any]:
        """Return the settings of who reaches the database by proxies of its own."""
        addresses = self.server.addresses
        if self.server.has_network:
            addresses = self.network.add_route(name, addresses)
        return self.server.settings(addresses)

    def _env(self, name: str, settings: dict[str, Any]) -> dict[str, str]:
        return {
            **env_of(self.nursery.folder, name),
            **self.clocks.env(name),
            "CHAOS_DATABASE": json.dumps(settings),
            "DJANGO_JOBS_TEST_DATABASE": self.server.kind,
        }

    def _producer(self, name: str, settings: dict[str, Any]) -> Program:
        # A producer that was killed makes other keys when it is started again.
        command = [
            *(sys.executable, "-m", "tests.processes.chaos.load"),
            *(f"{name}.{{generation}}", f"{self.size.seed} {name} {{generation}}"),
            str(self.size.pause),
        ]
        return Program(self.nursery, name, command, self._env(name, settings))

    def _can_pool(self) -> bool:
        if self.server.kind != "postgresql":
            return False
        if bouncer.program() is None:
            self.left_out["PgBouncer is not installed"].append("a worker behind it")
            return False
        return True

    def _add_pooled_host(self) -> None:
        assert isinstance(self.server, PostgreSQL)
        [target] = self.network.add_route(POOLER, [self.server.primary])
        self.bouncer = bouncer.Bouncer(self.nursery, self.server, target)
        settings = self.server.settings([self.bouncer.address])
        settings["DISABLE_SERVER_SIDE_CURSORS"] = True
        command = worker_command(POOLER, *OPTIONS)
        env = self._env(POOLER, settings) | TIMES
        self.hosts.append(Host(self.nursery, POOLER, command, env))

    def point_pooler_at(self, address: Address) -> None:
        """Have the pooler reach another node from now on, as by a virtual address."""
        for proxy in self.network.routes.get(POOLER, []):
            proxy.target = address

    # -- time ------------------------------------------------------------------------

    def look_after(self) -> None:
        """Start again what is gone."""
        now = time.monotonic()
        for program in (*self.hosts, *self.producers):
            program.look_after(now)

    def wait(self, seconds: float) -> None:
        """Let time go by; what is gone is started again meanwhile."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self.look_after()
            time.sleep(min(0.05, left))

    def wait_for(self, what: Callable[[], object], timeout: float) -> bool:
        """Wait for something; False when it does not come."""
        until = time.monotonic() + timeout
        while not what():
            if time.monotonic() > until:
                return False
            self.wait(0.05)
        return True

    def prune(self) -> None:
        """Delete what is past its retention, and keep count."""
        output = StringIO()
        connection.close()  # it may be one of those that were cut
        try:
            call_command("jobs", "prune", format="json", stdout=output)
        except CommandError as error:
            # It may have deleted something before that, and told nobody.
            self.counts["failed_prunes"] += 1
            self.journal.say(f"prune: {error}")
            return
        self.counts["pruned"] += json.loads(output.getvalue())["deleted"]

    # -- for the faults --------------------------------------------------------------

    def ready_hosts(self) -> list[Host]:
        return [host for host in self.hosts if host.is_ready]

    def busy_processes(self) -> set[tuple[str, int, str]]:
        """Return the processes that run something, each with its host."""
        lines = list(audit.read_runs(self.nursery.folder / audit.RUNS))
        ended = {(each.key, each.lease) for each in lines if each.event != "start"}
        running = [each for each in lines if (each.key, each.lease) not in ended]
        return {(each.host, each.pid, each.born) for each in running}

    def note_slowest(self, what: str, seconds: float) -> None:
        self.slowest[what] = max(seconds, self.slowest.get(what, 0.0))
