"""A database server of the test's own, on a host of its own at the end of a cable.

Who is not on that host reaches it by the cable only; the test itself by a socket in
the file system, which no network is between.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from subprocess import Popen
from typing import Any, ClassVar

import psycopg
import pymysql

from tests.processes.cable import (
    FAR_ADDRESS,
    SERVER_ADDRESS,
    Cable,
    connections,
    inside,
)
from tests.processes.chaos.nursery import Nursery
from tests.processes.chaos.servers.mariadb import program
from tests.processes.chaos.servers.postgresql import programs
from tests.processes.chaos.waiting import wait_until

#: Established, or closed by this end alone and not confirmed, as the kernel says.
LIVING = ("01", "04", "05", "08", "09")


class ServerApart(ABC):
    """A server with one database, of the same name as that of the tests."""

    #: Who runs it.
    user: ClassVar[str]
    #: Where workers find it, but for the name of the database.
    url: ClassVar[str]

    def __init__(self, cable: Cable, nursery: Nursery, name: str) -> None:
        self.cable, self.nursery, self.name = cable, nursery, name
        self.folder = nursery.make_folder("server", self.user)
        self.process: Popen[bytes] | None = None

    def start(self) -> None:
        self._initialise()
        uid = ["setpriv", "--reuid", self.user, "--regid", self.user, "--clear-groups"]
        command = [*inside(self.cable.server), *uid, *map(str, self._command())]
        log = self.nursery.folder / "server.log"
        self.process = self.nursery.start(command, log=log)
        wait_until(self._answers, f"a server answers; see {log}")
        self._create()

    def _answers(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            log = (self.nursery.folder / "server.log").read_text()
            raise RuntimeError(f"the server has ended: {log}")
        # Only then: PyMySQL forgets to close what cannot connect.
        if not (self.folder / self._SOCKET).exists():
            return False
        with suppress(psycopg.OperationalError):  # it still starts
            self._run("SELECT 1")
            return True
        return False

    def far_sessions(self) -> set[int]:
        """Return the sessions of those at the other end of the cable."""
        return {row[0] for row in self._run(self._FAR_SESSIONS)}

    def end_far_sessions(self) -> None:
        for session in self.far_sessions():
            with suppress(pymysql.MySQLError):  # it has ended by itself
                self._run(self._END.format(session))

    def connections(self) -> set[int]:
        """Return the far ports of the connections that its host has not forgotten."""
        assert self.process is not None
        return connections(self.process.pid, LIVING)

    @property
    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """How the test reaches it, in DATABASES."""

    _END: ClassVar[str]
    #: The way for those on the same machine.
    _SOCKET: ClassVar[str]
    #: Those of clients at the other end of the cable.
    _FAR_SESSIONS: ClassVar[str]

    @abstractmethod
    def _initialise(self) -> None: ...

    @abstractmethod
    def _command(self) -> Sequence[str | Path]: ...

    @abstractmethod
    def _create(self) -> None:
        """Make the database, and let the other host in."""

    @abstractmethod
    def _run(self, statement: str) -> list[Any]:
        """Run a statement on no database in particular."""


class PostgreSQLApart(ServerApart):
    user = "postgres"
    url = f"postgres://postgres@{SERVER_ADDRESS}:5432/postgres"
    _END = "SELECT pg_terminate_backend({}, 5000)"
    _SOCKET = ".s.PGSQL.5432"
    _FAR_SESSIONS = (
        f"SELECT pid FROM pg_stat_activity WHERE client_addr = '{FAR_ADDRESS}'"
    )

    @property
    def settings(self) -> dict[str, Any]:
        return {"HOST": str(self.folder), "PORT": 5432, "USER": self.user}

    def _initialise(self) -> None:
        found = programs()
        assert found is not None
        self._programs = found
        words = ["-U", self.user, "-A", "trust", "-E", "UTF8", "--no-sync"]
        data = self.folder / "data"
        self.nursery.run([found / "initdb", "-D", data, *words], user=self.user)
        with (data / "pg_hba.conf").open("a") as rules:
            rules.write("host all all samenet trust\n")

    def _command(self) -> Sequence[str | Path]:
        where = ["-D", self.folder / "data", "-k", self.folder, "-h", SERVER_ADDRESS]
        return [self._programs / "postgres", *where, "-c", "fsync=off"]

    def _create(self) -> None:
        self._run(f'CREATE DATABASE "{self.name}"')

    def _run(self, statement: str) -> list[Any]:
        where = {"host": str(self.folder), "user": self.user, "dbname": "postgres"}
        with psycopg.connect(**where, autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def port_of_lock(self) -> int:
        """Return the far port of the session with a lock; 0 when there is none."""
        found = self._run(
            "SELECT client_port FROM pg_stat_activity JOIN pg_locks USING (pid) "
            "WHERE locktype = 'advisory'"
        )
        return found[0][0] if found else 0


class MariaDBApart(ServerApart):
    user = "mysql"
    url = f"mysql://far@{SERVER_ADDRESS}:3306/"
    _END = "KILL {}"
    _SOCKET = "socket"
    _FAR_SESSIONS = (
        "SELECT id FROM information_schema.processlist "
        f"WHERE host LIKE '{FAR_ADDRESS}%'"
    )

    @property
    def settings(self) -> dict[str, Any]:
        return {"HOST": str(self.folder / self._SOCKET), "PORT": "", "USER": "root"}

    def _initialise(self) -> None:
        words = ["--auth-root-authentication-method=normal", "--skip-test-db"]
        data = f"--datadir={self.folder / 'data'}"
        install = str(program("mariadb-install-db"))
        self.nursery.run([install, "--no-defaults", data, *words], user=self.user)

    def _command(self) -> Sequence[str | Path]:
        return [
            str(program("mariadbd")),
            "--no-defaults",
            f"--datadir={self.folder / 'data'}",
            f"--socket={self.folder / self._SOCKET}",
            f"--pid-file={self.folder / 'pid'}",
            f"--bind-address={SERVER_ADDRESS}",
            "--port=3306",
            "--skip-name-resolve",
            "--innodb-flush-log-at-trx-commit=0",
        ]

    def _create(self) -> None:
        self._run(f"CREATE DATABASE {self.name} CHARACTER SET utf8mb4")
        self._run("GRANT ALL ON *.* TO far@'%' IDENTIFIED BY ''")

    def _run(self, statement: str) -> list[Any]:
        with (
            pymysql.connect(
                unix_socket=str(self.folder / self._SOCKET),
                user="root",
                autocommit=True,
            ) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute(statement)
            return list(cursor.fetchall())
