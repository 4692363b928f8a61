"""The server of the database is restarted, lost, away, or full."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from tests.processes.chaos.faults import needs
from tests.processes.chaos.faults.base import Fault
from tests.processes.chaos.servers.cluster import Cluster

#: Seconds that a worker needs to be started again, and to find no database.
RESTART = 4.0


class _OwnServer(Fault):
    """A fault that nobody would forgive on a server of somebody else."""

    needs = (needs.network, needs.own_server)
    is_outage = True


class CrashServer(_OwnServer):
    """An immediate restart of PostgreSQL, kill -9 of MariaDB: it has to recover."""

    weight = 5
    signal_name: ClassVar[str] = "crash_signal"

    def strike(self) -> None:
        server = self.site.server
        server.halt(getattr(server, self.signal_name))
        server.resume()
        self.site.counts["server_restarts"] += 1
        self.hit()


class RestartServer(CrashServer):
    """A fast restart: the server closes all connections and ends in order."""

    weight = 3
    signal_name = "stop_signal"


class ServerAway(_OwnServer):
    """The server is down for a while, longer than workers hold on to their tasks."""

    weight = 2
    lasts = (2.0, 8.0)

    def strike(self) -> None:
        self.site.server.halt(self.site.server.stop_signal)
        self.hit()

    def heal(self) -> None:
        self.site.server.resume()
        self.site.counts["server_restarts"] += 1


class LongAway(ServerAway):
    """The server is down once for as long as --away says."""

    weight = 0


class AwayAtStart(ServerAway):
    """A worker is started while the server is down."""

    lasts = (RESTART, RESTART + 2)

    def strike(self) -> None:
        super().strike()
        if hosts := self.site.ready_hosts():
            killed = self.random.choice(hosts).kill_all()
            self.site.deaths += killed
            self.site.counts["killed_children"] += len(killed) - 1
            self.site.counts["killed_groups"] += 1
            self.site.counts["killed_parents"] += 1


class FailOver(_OwnServer):
    """The primary is lost and the standby takes over; a new standby is made."""

    needs = (needs.network, needs.own_server, needs.standby)
    weight = 3

    def strike(self) -> None:
        server = self.site.server
        assert isinstance(server, Cluster)
        server.fail_over()
        self.site.point_pooler_at(server.primary)
        self.site.counts["failovers"] += 1
        self.hit()

    def heal(self) -> None:
        assert isinstance(self.site.server, Cluster)
        self.site.server.make_standby()


class StandbyAway(FailOver):
    """The standby is down for a moment: no commit is answered meanwhile."""

    weight = 1
    lasts = (1.0, 5.0)

    def strike(self) -> None:
        server = self.site.server
        assert isinstance(server, Cluster)
        server.standby_node.stop(server.stop_signal)
        self.hit()

    def heal(self) -> None:
        assert isinstance(self.site.server, Cluster)
        self.site.server.standby_node.start()


class DiskFull(_OwnServer):
    """The file system of the database is full for a while."""

    needs = (needs.own_server, needs.small_disk)
    lasts = (2.0, 5.0)

    def strike(self) -> None:
        folder = self.site.server.small_folder
        assert folder is not None
        self.ballast = folder / "ballast"
        fill(self.ballast)
        self.hit()
        self.site.counts["disks_filled"] += 1

    def heal(self) -> None:
        self.ballast.unlink()


def fill(path: Path) -> None:
    """Write a file until nothing fits any more, not even a byte."""
    with path.open("wb", buffering=0) as ballast:
        size = 1024 * 1024
        while size:
            try:
                ballast.write(bytes(size))
            except OSError:
                size //= 2


FAULTS = [
    CrashServer,
    RestartServer,
    ServerAway,
    LongAway,
    AwayAtStart,
    FailOver,
    StandbyAway,
    DiskFull,
]
