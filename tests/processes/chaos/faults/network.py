"""The network fails: resets, black holes, refusals, delays, lost answers."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from tests.processes.chaos.faults import needs
from tests.processes.chaos.faults.base import Fault
from tests.processes.chaos.network.proxy import CommitFault, Link, Proxy
from tests.processes.chaos.site import PRODUCERS

#: Seconds that a slow network adds to each chunk.
DELAY = 0.1


class NetworkFault(Fault):
    """A fault of the proxies of some host, or of all."""

    needs = (needs.network,)
    weight = 2

    def strike(self) -> None:
        self.routes = self.choose()
        self.proxies = [
            proxy for name in self.routes for proxy in self.site.network.routes[name]
        ]
        self.site.counts["proxy_faults"] += 1
        self.each(self.spoil)

    def heal(self) -> None:
        self.each(self.restore)

    def choose(self) -> list[str]:
        """Return the hosts that are hit: one, or all."""
        names = list(self.site.network.routes)
        return names if self.random.random() < 0.3 else [self.random.choice(names)]

    def each(self, action: Callable[[Proxy], Coroutine[Any, Any, None]]) -> None:
        for proxy in self.proxies:
            self.site.network.call(action, proxy)

    async def spoil(self, proxy: Proxy) -> None:
        raise NotImplementedError

    async def restore(self, proxy: Proxy) -> None:
        """Nothing to do for faults of a moment."""


class Reset(NetworkFault):
    """All connections of a host are reset, whatever is under way on them."""

    weight = 4

    async def spoil(self, proxy: Proxy) -> None:
        await proxy.cut_all()


class Refuse(NetworkFault):
    """Connections are cut, and refused for a while."""

    lasts = (1.0, 6.0)
    is_outage = True

    async def spoil(self, proxy: Proxy) -> None:
        await proxy.refuse()

    async def restore(self, proxy: Proxy) -> None:
        await proxy.listen()


class BlackHole(NetworkFault):
    """Nothing passes for a while, and nobody is told; then all of it arrives."""

    lasts = (1.0, 9.0)
    is_outage = True

    async def spoil(self, proxy: Proxy) -> None:
        proxy.is_open.clear()

    async def restore(self, proxy: Proxy) -> None:
        proxy.is_open.set()


class Partition(BlackHole):
    """Nothing passes for a while; then the old connections are reset."""

    async def restore(self, proxy: Proxy) -> None:
        await proxy.cut_all()
        proxy.is_open.set()


class Slow(NetworkFault):
    """Every chunk is late, and arrives in slices of a byte."""

    lasts = (2.0, 6.0)

    async def spoil(self, proxy: Proxy) -> None:
        proxy.delay, proxy.is_slicing = DELAY, True

    async def restore(self, proxy: Proxy) -> None:
        proxy.delay, proxy.is_slicing = 0.0, False


class LostReply(NetworkFault):
    """The server commits, and the answer is lost with the connection."""

    weight = 4
    fault = CommitFault.REPLY_LOST

    async def spoil(self, proxy: Proxy) -> None:
        proxy.commit_faults.extend([self.fault] * 3)


class LostCommit(LostReply):
    """A commit is lost with the connection before the server sees it."""

    fault = CommitFault.NEVER_SENT


class HalfOpen(NetworkFault):
    """The connections that a worker has are dead for ever, and it is not told."""

    def choose(self) -> list[str]:
        # A producer has no deadlines but those that its project gives it.
        names = [name for name in self.site.network.routes if name != PRODUCERS]
        return [self.random.choice(names)]

    def is_hit(self, link: Link) -> bool:
        return True

    async def spoil(self, proxy: Proxy) -> None:
        for link in filter(self.is_hit, proxy.links):
            link.is_open.clear()


class ListenHalfOpen(HalfOpen):
    """The connections that wait for notifications are dead, and nobody is told."""

    needs = (needs.network, needs.notifications)
    weight = 1

    def choose(self) -> list[str]:
        return [name for name in self.site.network.routes if name != PRODUCERS]

    def is_hit(self, link: Link) -> bool:
        return link.tap.is_listening


class ListenLost(ListenHalfOpen):
    """The connections that wait for notifications are reset."""

    async def spoil(self, proxy: Proxy) -> None:
        for link in list(filter(self.is_hit, proxy.links)):
            link.cut()


class EndSessions(Fault):
    """The server ends the sessions of clients, again and again for a while."""

    needs = (needs.network,)
    weight = 3
    lasts = (0.5, 2.0)
    #: Seconds between two times.
    every = 0.25

    def strike(self) -> None:
        for _ in range(self.random.randint(2, 8)):
            ended = self.site.server.end_sessions(self.random.randint(1, 12))
            self.site.counts["killed_backends"] += ended
            self.site.wait(self.every)


FAULTS = [
    Reset,
    Refuse,
    BlackHole,
    Partition,
    Slow,
    LostReply,
    LostCommit,
    HalfOpen,
    ListenHalfOpen,
    ListenLost,
    EndSessions,
]
