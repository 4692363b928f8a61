"""The databases of a run: private servers that may be hurt, or one that is given."""

from __future__ import annotations

from urllib.parse import urlsplit

from tests.processes.chaos.nursery import Nursery
from tests.processes.chaos.servers.base import Server
from tests.processes.chaos.servers.cluster import Cluster
from tests.processes.chaos.servers.mariadb import MariaDB, PrivateMariaDB
from tests.processes.chaos.servers.postgresql import PostgreSQL
from tests.processes.chaos.servers.sqlite import SQLite


def open_server(url: str, nursery: Nursery) -> Server:
    """Return the server of a URL; without a host it is one of our own."""
    parts = urlsplit(url)
    if parts.scheme == "sqlite":
        return SQLite(nursery)
    if parts.scheme in ("postgres", "postgresql"):
        return PostgreSQL(url) if parts.hostname else Cluster(nursery)
    if parts.scheme in ("mysql", "mariadb"):
        return MariaDB(url) if parts.hostname else PrivateMariaDB(nursery)
    raise ValueError(f"no database of this kind: {url!r}")
