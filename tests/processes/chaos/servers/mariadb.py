"""MariaDB or MySQL: a server that is given, or a MariaDB of our own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from contextlib import closing, suppress
from typing import Any
from urllib.parse import unquote, urlsplit

import pymysql

from tests.processes.chaos.nursery import Nursery
from tests.processes.chaos.servers.base import Address, Server
from tests.processes.chaos.waiting import free_port, wait_until

PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"
USER = "mysql"
#: Sessions of clients in the database, but not ours.
SESSIONS = """
SELECT id, command, state, info, host FROM information_schema.processlist
WHERE db = %s AND id <> CONNECTION_ID()
"""
#: There is no such session any more.
UNKNOWN = 1094


class MariaDB(Server):
    """A database of the run's own on a server that belongs to somebody else."""

    kind = "mariadb"

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.user = unquote(parts.username or "root")
        self.password = unquote(parts.password or "")
        self.address = Address(parts.hostname or "127.0.0.1", parts.port or 3306)
        self.name = f"chaos_{os.getpid()}"

    def start(self) -> None:
        self.execute(f"CREATE DATABASE {self.name} CHARACTER SET utf8mb4")

    def stop(self) -> None:
        self.execute(f"DROP DATABASE IF EXISTS {self.name}")

    @property
    def addresses(self) -> list[Address]:
        return [self.address]

    def settings(self, addresses: Sequence[Address]) -> dict[str, Any]:
        return {
            "ENGINE": "django.db.backends.mysql",
            "NAME": self.name,
            "USER": self.user,
            "PASSWORD": self.password,
            "HOST": addresses[0].host,
            "PORT": addresses[0].port,
            "OPTIONS": {"connect_timeout": 5, "charset": "utf8mb4"},
        }

    def connect(self, name: str | None = None) -> Any:
        """Connect without a proxy; every statement is a transaction of its own."""
        return pymysql.connect(
            host=self.address.host,
            port=self.address.port,
            user=self.user,
            password=self.password,
            database=name,
            autocommit=True,
            connect_timeout=5,
        )

    def execute(self, text: str, params: Sequence[Any] = ()) -> list[Any]:
        with closing(self.connect()) as connection, connection.cursor() as cursor:
            cursor.execute(text, params)
            return list(cursor.fetchall())

    def sessions(self) -> list[str]:
        rows = self.execute(SESSIONS, [self.name])
        return [" ".join(map(str, row)) for row in rows]

    def end_sessions(self, most: int) -> list[int]:
        with closing(self.connect()) as connection, connection.cursor() as cursor:
            cursor.execute(f"{SESSIONS} ORDER BY RAND() LIMIT {most}", [self.name])
            return [_port(row) for row in cursor.fetchall() if _end(cursor, row[0])]

    def client_ports(self) -> list[int]:
        return [_port(row) for row in self.execute(SESSIONS, [self.name])]


class PrivateMariaDB(MariaDB):
    """A server of our own."""

    is_ours = True
    crash_signal = signal.SIGKILL
    stop_signal = signal.SIGTERM

    def __init__(self, nursery: Nursery) -> None:
        super().__init__("mysql://root@127.0.0.1/")
        self.address = Address("127.0.0.1", free_port())
        self.nursery = nursery
        self.folder = nursery.make_folder("mariadb", USER)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        words = ["--auth-root-authentication-method=normal", "--skip-test-db"]
        data = f"--datadir={self.folder / 'data'}"
        install = str(program("mariadb-install-db"))
        self.nursery.run([install, "--no-defaults", data, *words], user=USER)
        self.resume()
        super().start()

    def stop(self) -> None:
        """The folder is removed with all that is in it."""

    def halt(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)
        self.process.wait(60)

    def resume(self) -> None:
        command = [
            str(program("mariadbd")),
            "--no-defaults",
            f"--datadir={self.folder / 'data'}",
            f"--port={self.address.port}",
            "--bind-address=127.0.0.1",
            f"--socket={self.folder / 'socket'}",
            f"--pid-file={self.folder / 'pid'}",
            "--innodb-flush-log-at-trx-commit=1",
            "--innodb-buffer-pool-size=128M",
            "--max-connections=300",
        ]
        log = self.nursery.folder / "mariadb.log"
        self.process = self.nursery.start(command, log=log, user=USER)
        wait_until(self.answers, "mariadb answers")

    def answers(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise RuntimeError("mariadb has ended: see its log")
        with suppress(pymysql.MySQLError), closing(self.connect()):
            return True
        return False


def _port(session: Sequence[Any]) -> int:
    return int(session[-1].rpartition(":")[2] or 0)


def _end(cursor: Any, session: int) -> bool:
    try:
        cursor.execute(f"KILL {session}")
    except pymysql.MySQLError as error:
        if error.args[0] != UNKNOWN:
            raise
        return False
    return True


def program(name: str) -> str | None:
    return shutil.which(name, path=PATH)
