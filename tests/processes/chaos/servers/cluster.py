"""A PostgreSQL primary of our own with a synchronous standby that may take over."""

from __future__ import annotations

import shutil
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import psycopg

from tests.processes.chaos.nursery import Nursery
from tests.processes.chaos.servers.base import Address, mount_small
from tests.processes.chaos.servers.postgresql import PostgreSQL, programs
from tests.processes.chaos.waiting import free_port, wait_until

USER = "postgres"
#: What a crash of the machine would need, a killed process does not: fsync.
CONFIGURATION = """
fsync = off
max_connections = 200
shared_buffers = 64MB
max_wal_size = 2GB
wal_keep_size = 64MB
wal_retrieve_retry_interval = 200ms
listen_addresses = '127.0.0.1'
log_min_messages = warning
include 'synchronous.conf'
"""
#: Bytes of the file system that the tables are on, where we may mount one.
ROOM = 512 * 1024 * 1024


class Node:
    """One server: its folder, its port and its process."""

    def __init__(self, nursery: Nursery, name: str) -> None:
        found = programs()
        assert found is not None
        self.programs = found
        self.nursery = nursery
        self.name = name
        self.port = free_port()
        self.folder = nursery.make_folder(name, USER)
        self.data = self.folder / "data"
        self.wal = self.folder / "wal"
        #: Are the tables on a small file system of their own? WAL never is.
        self.is_small = mount_small(self.data, ROOM)
        self.data.mkdir(exist_ok=True)
        self.data.chmod(0o700)
        nursery.give(self.data, USER)
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> Address:
        return Address("127.0.0.1", self.port)

    def run(self, program: str, *arguments: str | Path) -> None:
        self.nursery.run([self.programs / program, *arguments], user=USER)

    def initialise(self) -> None:
        words = ["-U", USER, "-A", "trust", "-E", "UTF8", "--no-sync"]
        self.run("initdb", "-D", self.data, "--waldir", self.wal, *words)
        with (self.data / "postgresql.conf").open("a") as configuration:
            configuration.write(CONFIGURATION)
        self.write_synchronous(False)

    def copy(self, primary: Node) -> None:
        """Become a standby of another node."""
        for folder in (self.data, self.wal):
            empty(folder)
        where = f"host=127.0.0.1 port={primary.port} user={USER}"
        words = ["-d", where, "-R", "-X", "stream", "-c", "fast", "--no-sync"]
        self.run("pg_basebackup", "-D", self.data, "--waldir", self.wal, *words)
        self.write_synchronous(False)

    def write_synchronous(self, is_on: bool) -> None:
        """Have commits wait for the standby or not, from the next reload on."""
        path = self.data / "synchronous.conf"
        path.write_text(f"synchronous_standby_names = '{'*' if is_on else ''}'\n")
        self.nursery.give(path, USER)

    def reload(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGHUP)

    def start(self) -> None:
        words = ["-D", self.data, "-p", str(self.port), "-k", self.folder]
        log = self.nursery.folder / f"{self.name}.log"
        command = [self.programs / "postgres", *words]
        self.process = self.nursery.start(command, log=log, user=USER)
        wait_until(self.answers, f"{self.name} answers")

    def answers(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise RuntimeError(f"{self.name} has ended: see its log")
        with suppress(psycopg.OperationalError), connect(self.port):
            return True
        return False

    def stop(self, number: int) -> None:
        """End it: SIGINT closes the connections, SIGQUIT is like a crash."""
        assert self.process is not None
        self.process.send_signal(number)
        self.process.wait(60)


class Cluster(PostgreSQL):
    """Two nodes of our own; the second one is a synchronous standby of the first."""

    is_ours = True
    crash_signal = signal.SIGQUIT
    stop_signal = signal.SIGINT

    def __init__(self, nursery: Nursery) -> None:
        super().__init__("postgres://postgres@127.0.0.1/postgres")
        self.nodes = [Node(nursery, "postgres-1"), Node(nursery, "postgres-2")]
        #: Index of the primary.
        self.first = 0

    def start(self) -> None:
        self.nodes[0].initialise()
        self.nodes[0].start()
        super().start()
        self.make_standby()

    def stop(self) -> None:
        """The folder is removed with all that is in it."""

    @property
    def addresses(self) -> list[Address]:
        return [node.address for node in self.nodes]

    @property
    def primary(self) -> Address:
        return self.nodes[self.first].address

    @property
    def primary_node(self) -> Node:
        return self.nodes[self.first]

    @property
    def standby_node(self) -> Node:
        return self.nodes[1 - self.first]

    @property
    def small_folder(self) -> Path | None:
        node = self.primary_node
        return node.data if node.is_small else None

    def halt(self, number: int) -> None:
        self.primary_node.stop(number)

    def resume(self) -> None:
        self.primary_node.start()

    def make_standby(self) -> None:
        """Make the other node a standby, and commits wait for it."""
        self.standby_node.copy(self.primary_node)
        self.standby_node.start()
        wait_until(self._is_streaming, "the standby follows")
        self.primary_node.write_synchronous(True)
        self.primary_node.reload()
        wait_until(self._is_synchronous, "the standby is synchronous")

    def _is_streaming(self) -> bool:
        return self._standby("state") == "streaming"

    def _is_synchronous(self) -> bool:
        return self._standby("sync_state") == "sync"

    def _standby(self, column: str) -> str:
        with self.connect(self.maintenance) as connection:
            row = connection.execute(
                f"SELECT {column} FROM pg_stat_replication"
            ).fetchone()
        return row[0] if row else ""

    def fail_over(self) -> None:
        """Lose the primary, as by a crash, and go on with the standby."""
        self.primary_node.stop(signal.SIGQUIT)
        self.first = 1 - self.first
        with self.connect(self.maintenance) as connection:
            connection.execute("SELECT pg_promote()")


def connect(port: int) -> psycopg.Connection[tuple[object, ...]]:
    return psycopg.connect(
        host="127.0.0.1", port=port, user=USER, dbname="postgres", connect_timeout=5
    )


def empty(folder: Path) -> None:
    """Remove what is in a folder; on the folder itself something may be mounted."""
    if folder.exists():
        for path in folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
