"""PgBouncer in transaction mode between one host and its database."""

from __future__ import annotations

import os
import shutil
import socket

from tests.processes.chaos.nursery import Nursery
from tests.processes.chaos.servers.base import Address
from tests.processes.chaos.servers.postgresql import PostgreSQL
from tests.processes.chaos.waiting import free_port, wait_until

#: Debian keeps it where only root looks for programs.
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"
CONFIGURATION = """
[databases]
* = {target}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
server_login_retry = 1
query_wait_timeout = 10
{user}
"""


def program() -> str | None:
    """Return where PgBouncer is; None when it is not installed."""
    return shutil.which("pgbouncer", path=PATH)


class Bouncer:
    """One pooler and the address at which it listens."""

    def __init__(self, nursery: Nursery, server: PostgreSQL, target: Address) -> None:
        found = program()
        assert found is not None
        self.address = Address("127.0.0.1", free_port())
        words = {"host": target.host, "port": target.port, "user": server.user}
        if server.password:
            words["password"] = server.password
        # It does not run as root; the package of Debian brings this user along.
        user = "user = postgres" if os.geteuid() == 0 else ""
        path = nursery.folder / "pgbouncer.ini"
        path.write_text(
            CONFIGURATION.format(
                target=" ".join(f"{name}={value}" for name, value in words.items()),
                port=self.address.port,
                user=user,
            )
        )
        log = nursery.folder / "pgbouncer.log"
        self.process = nursery.start([found, path], log=log)
        wait_until(self.answers, "pgbouncer answers")

    def answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(self.address) == 0

    def stop(self) -> None:
        self.process.kill()
        self.process.wait(5)
