"""All the proxies of a run, on a thread with an event loop of their own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from tests.processes.chaos.network.proxy import Proxy
from tests.processes.chaos.network.taps import Tap
from tests.processes.chaos.servers.base import Address

T = TypeVar("T")


class Network:
    """Who reaches the database by which proxies: a host has one per node."""

    def __init__(self, make_tap: Callable[[], Tap]) -> None:
        self._make_tap = make_tap
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self.routes: dict[str, list[Proxy]] = {}

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        if self._thread.is_alive():
            self.call(self._end)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(5)
            self._loop.close()

    def call(self, function: Callable[..., Coroutine[Any, Any, T]], *args: Any) -> T:
        """Have the loop do something; return what came of it."""
        return asyncio.run_coroutine_threadsafe(function(*args), self._loop).result(30)

    def add_route(self, host: str, targets: list[Address]) -> list[Address]:
        """Make the proxies of a host; return where it finds them."""
        self.routes[host] = [self.call(self._open, target) for target in targets]
        return [proxy.address for proxy in self.routes[host]]

    def hosts_by_port(self) -> dict[int, str]:
        """Return who is behind which port, as the server sees its clients."""
        return self.call(self._hosts_by_port)

    async def _hosts_by_port(self) -> dict[int, str]:
        return {
            link.port: host
            for host, proxies in self.routes.items()
            for proxy in proxies
            for link in proxy.links
        }

    def tell_servers(self) -> None:
        """End what leads nowhere, as the server's own probes would do in time."""
        if self._thread.is_alive():
            self.call(self.end_half_open, *self.routes)

    async def end_half_open(self, *names: str) -> None:
        for name in names:
            for proxy in self.routes[name]:
                for link in [each for each in proxy.links if not each.is_open.is_set()]:
                    link.cut()

    async def _open(self, target: Address) -> Proxy:
        proxy = Proxy(target, self._make_tap)
        await proxy.listen()
        return proxy

    async def _end(self) -> None:
        for proxies in self.routes.values():
            for proxy in proxies:
                await proxy.refuse()
        if left := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(left, timeout=5)
