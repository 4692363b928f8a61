"""What must not be left: growth of a worker while it runs, anything after its stop."""

from __future__ import annotations

import re
import sqlite3
from collections import Counter
from contextlib import closing, suppress
from pathlib import Path
from typing import NamedTuple

from tests.processes.chaos.hosts import Host, Program
from tests.processes.chaos.servers.sqlite import SQLite
from tests.processes.chaos.site import POOLER, PROCESSES, Site
from tests.processes.proc import descendants

#: How many more there may be than at the start: a connection that comes and goes.
MORE_DESCRIPTORS, MORE_THREADS = 4, 1
#: The same of a child, which opens its connections as it needs them: on SQLite each
#: of them has three files.
MORE_OF_A_CHILD = 12
#: A child that was not there yet. What is left in a namespace of its own dies with it:
#: only before the stop can it be seen.
MORE_PROCESSES = 1
#: Sessions of a worker: the parent claims and completes on two, beats on one, listens
#: on one, and looks for a while on another; a child has one for threads, and one for
#: what coroutines call in theirs.
SESSIONS = 5 + 2 * PROCESSES
#: Seconds in which what is left must go.
PATIENCE = 15.0
EVENT = re.compile(r"\bevent=(\w+)")
#: The end of a traceback: the name of an exception at the start of a line.
ERROR = re.compile(r"^[\w.]+(?:Error|Exception|Interrupt|Exit|Full|Lost)\b.*")


class Holdings(NamedTuple):
    """What a worker holds: its parent, and the one of its children that has most."""

    descriptors: int
    threads: int
    of_a_child: int  #: descriptors
    processes: int = 0  #: below the parent

    @classmethod
    def of(cls, host: Host) -> Holdings:
        children = [_count(pid, "fd") for pid in host.children()]
        parent = host.worker
        return cls(
            _count(parent, "fd"),
            _count(parent, "task"),
            max(children, default=0),
            len(descendants(parent)),
        )

    def has_grown(self, since: Holdings) -> bool:
        return (
            self.descriptors > since.descriptors + MORE_DESCRIPTORS
            or self.threads > since.threads + MORE_THREADS
            or self.of_a_child > since.of_a_child + MORE_OF_A_CHILD
            or self.processes > since.processes + MORE_PROCESSES
        )


def _count(pid: int, what: str) -> int:
    with suppress(OSError):
        return len(list((Path("/proc") / str(pid) / what).iterdir()))
    return 0


def holdings(site: Site) -> dict[str, Holdings]:
    return {host.name: Holdings.of(host) for host in site.hosts}


def growth(site: Site, at_start: dict[str, Holdings]) -> list[str]:
    """Return which workers hold more than at the start, and go on to."""

    def grown() -> dict[str, Holdings]:
        now = holdings(site)
        return {
            name: each for name, each in now.items() if each.has_grown(at_start[name])
        }

    site.wait_for(lambda: not grown(), PATIENCE)
    return [f"{name} {now} since {at_start[name]}" for name, now in grown().items()]


def crowds(site: Site) -> list[str]:
    """Return which workers have more sessions than they have a use for."""
    if not site.server.has_network:
        return []
    site.network.tell_servers()

    def sessions() -> Counter[str]:
        hosts = site.network.hosts_by_port()
        return Counter(hosts.get(port, "") for port in site.server.client_ports())

    def crowded() -> list[str]:
        found = sessions()
        names = [host.name for host in site.hosts if host.name != POOLER]
        return [f"{name}: {found[name]}" for name in names if found[name] > SESSIONS]

    site.wait_for(lambda: not crowded(), PATIENCE)
    site.counts["most_sessions"] = max(
        count for name, count in (sessions() | Counter({"none": 0})).items() if name
    )
    return crowded()


def after_stop(site: Site) -> list[str]:
    """Return the processes, sessions and files that outlived a graceful stop."""
    site.stop_pooler()
    site.network.tell_servers()
    programs = [*site.hosts, *site.producers]

    def left() -> list[str]:
        return [
            *_processes(site, programs),
            *site.server.sessions(),
            *_temporary_files(site),
        ]

    site.wait_for(lambda: not left(), PATIENCE)
    return left()


def _processes(site: Site, programs: list[Program]) -> list[str]:
    names = {f"CHAOS_HOST={program.name}".encode() for program in programs}
    found = []
    for pid in site.nursery.left():
        with suppress(OSError):
            environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")
            if names.intersection(environment):
                found.append(f"{pid} {command.decode(errors='replace')}")
    return found


def _temporary_files(site: Site) -> list[str]:
    names = [path.name for path in site.nursery.temporary.iterdir()]
    # Where all of a worker was killed at once, nobody was left to tidy up.
    return names if len(names) > site.counts["killed_groups"] else []


def damage(site: Site) -> list[str]:
    """Return what SQLite finds wrong with its file."""
    if not isinstance(site.server, SQLite):
        return []
    with closing(sqlite3.connect(site.server.path)) as connection:
        rows = connection.execute("PRAGMA integrity_check").fetchall()
    return [row[0] for row in rows if row[0] != "ok"]


def counted(site: Site, event: str, word: str) -> list[int]:
    """Return the numbers that workers told with an event."""
    pattern = re.compile(rf"\bevent={event}\b.*\b{word}=(\d+)")
    logs = [
        path.read_text(errors="replace") for host in site.hosts for path in host.logs
    ]
    return [int(number) for text in logs for number in pattern.findall(text)]


def words_of_logs(site: Site) -> tuple[dict[str, int], dict[str, int]]:
    """Return how often workers told of which event, and the ends of tracebacks."""
    events: Counter[str] = Counter()
    errors: Counter[str] = Counter()
    for host in site.hosts:
        for path in host.logs:
            lines = path.read_text(errors="replace").splitlines()
            events.update(match[1] for line in lines if (match := EVENT.search(line)))
            errors.update(line[:150] for line in lines if ERROR.match(line))
    return dict(events.most_common()), dict(errors.most_common(20))
