"""Two hosts and the cable between them, which a test can pull: packets vanish.

A proxy that swallows bytes still has a kernel that confirms them. Here nobody does:
no confirmation, no reset, no word of a host that cannot be reached. What ends a call
are the timeouts of TCP and of those who wait.

Each host is a namespace of the network. The one of the server has a switch, and the
port of the switch to which the other host is connected is what goes down: so both
keep their addresses and routes, as they do when a cable far away is cut.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Container
from pathlib import Path

from tests.processes.proc import is_alive

SERVER_ADDRESS, FAR_ADDRESS = "10.77.0.1", "10.77.0.2"
#: Of the names of our namespaces; the number of the process that made them follows.
PREFIX = "django_jobs_test_"
PORT, SWITCH, CARD = "port", "switch", "card"
#: Made up, and known to both: nobody has to ask the other host for them.
SERVER_MAC, FAR_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02"


class CannotLay(Exception):
    """There are no namespaces here, or we may not make one."""


class Cable:
    """The namespaces of a server and of a worker, by name, and what is between them."""

    def __init__(self) -> None:
        self.server = f"{PREFIX}{os.getpid()}_server"
        self.far = f"{PREFIX}{os.getpid()}_far"

    def lay(self) -> None:
        """Make both hosts and connect them; CannotLay when that is not possible."""
        if shutil.which("ip") is None or shutil.which("nsenter") is None:
            raise CannotLay("no network namespaces: there is no ip or no nsenter")
        sweep()
        try:
            self._lay()
        except subprocess.CalledProcessError as error:
            self.remove()
            raise CannotLay(f"no network namespaces: {error.stderr.strip()}") from None

    def _lay(self) -> None:
        for host in (self.server, self.far):
            ip("netns", "add", host)
            ip("-n", host, "link", "set", "lo", "up")
        on_server, on_far = ("-n", self.server), ("-n", self.far)
        ip(*on_server, "link", "add", SWITCH, "address", SERVER_MAC, "type", "bridge")
        far_end = ("name", CARD, "address", FAR_MAC, "netns", self.far)
        ip(*on_server, "link", "add", PORT, "type", "veth", "peer", *far_end)
        ip(*on_server, "link", "set", PORT, "master", SWITCH, "up")
        for side, card, own, other, mac in (
            (on_server, SWITCH, SERVER_ADDRESS, FAR_ADDRESS, FAR_MAC),
            (on_far, CARD, FAR_ADDRESS, SERVER_ADDRESS, SERVER_MAC),
        ):
            ip(*side, "addr", "add", f"{own}/24", "dev", card)
            ip(*side, "link", "set", card, "up")
            # Else "no route to host" would end a call after three seconds.
            ip(*side, "neigh", "add", other, "lladdr", mac, "dev", card)

    def pull(self) -> None:
        ip("-n", self.server, "link", "set", PORT, "down")

    def plug(self) -> None:
        ip("-n", self.server, "link", "set", PORT, "up")

    def remove(self) -> None:
        for host in (self.server, self.far):
            subprocess.run(["ip", "netns", "del", host], capture_output=True)


def inside(host: str) -> list[str]:
    """Return what runs the command after it on one of the hosts."""
    return ["nsenter", f"--net=/run/netns/{host}"]


def connections(pid: int, states: Container[str] = ("01",)) -> set[int]:
    """Return the far ports of the connections there are on the host of a process.

    Those that are established, or in other states as the kernel numbers them.
    """
    table = Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]
    rows = [line.split() for line in table]
    ends = [row[1:3] for row in rows if row[3] in states]
    return {max(_port(own), _port(other)) for own, other in ends}


def _port(end: str) -> int:
    return int(end.rpartition(":")[2], 16)


def sweep() -> None:
    """Remove what a run has left that was killed."""
    for name in ip("netns", "list").split():
        pid = name.removeprefix(PREFIX).partition("_")[0]
        if name.startswith(PREFIX) and not is_alive(int(pid)):
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


def ip(*words: str) -> str:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=True)
    return done.stdout
