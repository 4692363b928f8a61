"""PostgreSQL: a server that is given, or a primary and a standby of our own."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import psycopg
from psycopg import sql

from tests.processes.chaos.servers.base import Address, Server

#: For every connection: the proxy reads what goes over it.
PLAIN = {"sslmode": "disable", "gssencmode": "disable"}
#: Sessions of clients in the database, but not ours.
SESSIONS = """
SELECT pid, application_name, state, query, client_port FROM pg_stat_activity
WHERE datname = %s AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""


class PostgreSQL(Server):
    """A database of the run's own on a server that belongs to somebody else."""

    kind = "postgresql"

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.user = unquote(parts.username or "postgres")
        self.password = unquote(parts.password or "")
        self.maintenance = parts.path.strip("/") or "postgres"
        self.address = Address(parts.hostname or "127.0.0.1", parts.port or 5432)
        self.name = f"chaos_{os.getpid()}"

    def start(self) -> None:
        with self.connect(self.maintenance) as connection:
            name = sql.Identifier(self.name)
            connection.execute(sql.SQL("CREATE DATABASE {}").format(name))

    def stop(self) -> None:
        with self.connect(self.maintenance) as connection:
            name = sql.Identifier(self.name)
            drop = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)")
            connection.execute(drop.format(name))

    @property
    def addresses(self) -> list[Address]:
        return [self.address]

    def settings(self, addresses: Sequence[Address]) -> dict[str, Any]:
        options: dict[str, Any] = {"connect_timeout": 5, **PLAIN}
        if len(addresses) > 1:
            options["target_session_attrs"] = "read-write"
        return {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": self.name,
            "USER": self.user,
            "PASSWORD": self.password,
            "HOST": ",".join(each.host for each in addresses),
            "PORT": ",".join(str(each.port) for each in addresses),
            "OPTIONS": options,
        }

    def connect(self, name: str = "", address: Address | None = None) -> Any:
        """Connect without a proxy; every statement is a transaction of its own."""
        host, port = address or self.primary
        return psycopg.connect(
            host=host,
            port=port,
            user=self.user,
            password=self.password,
            dbname=name or self.name,
            autocommit=True,
            connect_timeout=5,
        )

    def sessions(self) -> list[str]:
        with self.connect(self.maintenance) as connection:
            rows = connection.execute(SESSIONS, [self.name]).fetchall()
        return [" ".join(map(str, row)) for row in rows]

    def end_sessions(self, most: int) -> list[int]:
        sessions = f"SELECT * FROM ({SESSIONS}) s ORDER BY random() LIMIT %s"
        ending = f"SELECT client_port, pg_terminate_backend(pid) FROM ({sessions}) s"
        with self.connect(self.maintenance) as connection:
            rows = connection.execute(ending, [self.name, most]).fetchall()
        return [port for port, is_ended in rows if is_ended]

    def client_ports(self) -> list[int]:
        with self.connect(self.maintenance) as connection:
            rows = connection.execute(SESSIONS, [self.name]).fetchall()
        return [row[-1] for row in rows]


def programs() -> Path | None:
    """Return the folder of the newest server that is installed."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=_version)
    for folder in reversed(folders):
        if (folder / "initdb").exists():
            return folder
    elsewhere = shutil.which("initdb")
    return Path(elsewhere).resolve().parent if elsewhere else None


def _version(folder: Path) -> int:
    return int(folder.parent.name) if folder.parent.name.isdecimal() else 0
