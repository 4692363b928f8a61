"""What a fault needs of a site; each says why it is not there, or nothing."""

from __future__ import annotations

from collections.abc import Callable

from tests.processes.chaos.servers.cluster import Cluster
from tests.processes.chaos.site import Site

Need = Callable[[Site], str]


def network(site: Site) -> str:
    return "" if site.server.has_network else "there is no server and no network"


def own_server(site: Site) -> str:
    return "" if site.server.is_ours else "the server is not ours"


def standby(site: Site) -> str:
    return "" if isinstance(site.server, Cluster) else "there is no standby"


def small_disk(site: Site) -> str:
    is_there = site.server.small_folder is not None
    return "" if is_there else "the files are on no file system of their own"


def notifications(site: Site) -> str:
    is_able = site.server.kind == "postgresql"
    return "" if is_able else "only PostgreSQL has notifications"


def single_writer(site: Site) -> str:
    return "only SQLite has one writer at a time" if site.server.has_network else ""


def own_clocks(site: Site) -> str:
    """The clock of the database must be another one than those of the hosts."""
    if not site.server.has_network:
        return "SQLite has no clock but that of the machine"
    return "" if site.clocks.can_move else "there is no compiler for C"


def isolation(site: Site) -> str:
    return "" if site.isolates else "hosts cannot be isolated from each other"
