"""The network fails: resets, black holes, refusals, delays, lost answers."""

from __future__ import annotations

from tests.processes.chaos.faults import needs
from tests.processes.chaos.faults.base import Fault
from tests.processes.chaos.journal import Harm
from tests.processes.chaos.network.proxy import CommitFault, Link, Proxy
from tests.processes.chaos.site import PRODUCERS

#: Seconds that a slow network adds to each chunk.
DELAY = 0.1
#: Commits that are lost on each way, if there are as many within a time.
COMMITS = 3
ARMED = (0.5, 2.0)


class NetworkFault(Fault):
    """A fault of the proxies of some host, or of all."""

    needs = (needs.network,)
    weight = 2
    counter = "proxy_faults"

    def strike(self) -> None:
        network = self.site.network
        names = self.choose()
        self.record.targets.update(names)
        self.proxies = [
            (name, proxy) for name in names for proxy in network.routes[name]
        ]
        for name, proxy in self.proxies:
            self.hit(name, times=network.call(self.spoil, proxy, name))

    def heal(self) -> None:
        for _, proxy in self.proxies:
            self.site.network.call(self.restore, proxy)

    def choose(self) -> list[str]:
        """Return the hosts that are hit: one, or all."""
        names = list(self.site.network.routes)
        return names if self.random.random() < 0.3 else [self.random.choice(names)]

    async def spoil(self, proxy: Proxy, host: str) -> int:
        """Return how many connections are hit."""
        raise NotImplementedError

    async def restore(self, proxy: Proxy) -> None:
        """Nothing to do for faults of a moment."""


class Reset(NetworkFault):
    """All connections of a host are reset, whatever is under way on them."""

    weight = 4

    async def spoil(self, proxy: Proxy, host: str) -> int:
        return await proxy.cut_all()


class Refuse(NetworkFault):
    """Connections are cut, and refused for a while."""

    lasts = (1.0, 6.0)
    is_outage = True

    async def spoil(self, proxy: Proxy, host: str) -> int:
        return await proxy.refuse()

    async def restore(self, proxy: Proxy) -> None:
        await proxy.listen()


class BlackHole(NetworkFault):
    """Nothing passes for a while, and nobody is told; then all of it arrives."""

    lasts = (1.0, 9.0)
    is_outage = True

    async def spoil(self, proxy: Proxy, host: str) -> int:
        proxy.is_open.clear()
        return len(proxy.links)

    async def restore(self, proxy: Proxy) -> None:
        proxy.is_open.set()


class Partition(BlackHole):
    """Nothing passes for a while; then the old connections are reset."""

    # As by a firewall that restarts: a proxy confirms what it does not deliver. For a
    # cable that is pulled, and nobody who confirms, see tests/processes/cable.py.

    async def restore(self, proxy: Proxy) -> None:
        await proxy.cut_all()
        proxy.is_open.set()


class Slow(NetworkFault):
    """Every chunk is late, and arrives in slices of a byte."""

    lasts = (2.0, 6.0)

    async def spoil(self, proxy: Proxy, host: str) -> int:
        proxy.delay, proxy.is_slicing = DELAY, True
        return len(proxy.links)

    async def restore(self, proxy: Proxy) -> None:
        proxy.delay, proxy.is_slicing = 0.0, False


class LostReply(NetworkFault):
    """The server commits, and the answer is lost with the connection."""

    weight = 4
    lasts = ARMED
    is_momentary = True
    fault = CommitFault.REPLY_LOST

    async def spoil(self, proxy: Proxy, host: str) -> int:
        proxy.arm(self.fault, COMMITS, lambda: self.hit(host))
        return 0  # it hits the next commits

    async def restore(self, proxy: Proxy) -> None:
        proxy.disarm()


class LostCommit(LostReply):
    """A commit is lost with the connection before the server sees it."""

    fault = CommitFault.NEVER_SENT


class HalfOpen(NetworkFault):
    """The connections that a worker has are dead for ever, and it is not told."""

    # Until the deadlines of both sides have found each connection out.
    lasts = (20.0, 20.0)
    is_background = True

    def choose(self) -> list[str]:
        # A producer has no deadlines but those that its project gives it.
        names = [name for name in self.site.network.routes if name != PRODUCERS]
        return [self.random.choice(names)]

    def is_hit(self, link: Link) -> bool:
        return True

    async def spoil(self, proxy: Proxy, host: str) -> int:
        links = list(filter(self.is_hit, proxy.links))
        for link in links:
            link.is_open.clear()
        return len(links)

    def heal(self) -> None:
        # What a pooler or a child has not used since has no deadline: in time the
        # kernels find it out.
        names = {name for name, _ in self.proxies}
        self.site.network.call(self.site.network.end_half_open, *names)


class ListenHalfOpen(HalfOpen):
    """The connections that wait for notifications are dead, and nobody is told."""

    needs = (needs.network, needs.notifications)
    weight = 1
    lasts = (0.0, 0.0)
    is_background = False
    harm = Harm.NOBODY

    def choose(self) -> list[str]:
        return [name for name in self.site.network.routes if name != PRODUCERS]

    def is_hit(self, link: Link) -> bool:
        return link.tap.is_listening


class ListenLost(ListenHalfOpen):
    """The connections that wait for notifications are reset."""

    async def spoil(self, proxy: Proxy, host: str) -> int:
        links = list(filter(self.is_hit, proxy.links))
        for link in links:
            link.cut()
        return len(links)


class EndSessions(Fault):
    """The server ends the sessions of clients, again and again for a while."""

    needs = (needs.network,)
    weight = 3
    lasts = (0.5, 2.0)
    is_momentary = True
    #: Seconds between two times.
    every = 0.25

    def strike(self) -> None:
        for _ in range(self.random.randint(2, 8)):
            hosts = self.site.network.hosts_by_port()
            ended = self.site.server.end_sessions(self.random.randint(1, 12))
            # The others are those of producers, and of who runs and watches all this.
            for host in [hosts.get(port, "") for port in ended]:
                if host in self.site.journal.workers:
                    self.site.counts["killed_backends"] += 1
                    self.hit(host)
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
