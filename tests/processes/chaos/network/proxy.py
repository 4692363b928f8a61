"""A TCP proxy that passes on, and can be told to do otherwise."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from enum import Enum

from tests.processes.chaos.network.taps import Tap
from tests.processes.chaos.servers.base import Address
from tests.processes.chaos.waiting import free_port

#: Bytes that are sent one by one when everything is sliced, at the start of a chunk.
SLICED = 100


class CommitFault(Enum):
    """What becomes of a commit."""

    REPLY_LOST = "the server commits, and the client never hears of it"
    NEVER_SENT = "the server never sees it, and ends the transaction"


class Link:
    """A connection of a client, and the one to the server that belongs to it."""

    def __init__(self, proxy: Proxy, client: Stream, server: Stream) -> None:
        self.proxy = proxy
        self.tap = proxy.make_tap()
        self._client, self._server = client, server
        #: Cleared: nothing passes any more, and nobody is told.
        self.is_open = asyncio.Event()
        self.is_open.set()
        self._loses_reply = False
        self._end = asyncio.Event()

    @property
    def port(self) -> int:
        """Where the server believes the client to be."""
        return self._server.port

    async def run(self) -> None:
        ways = self._up(), self._down(), self._end.wait()
        pumps = [asyncio.ensure_future(way) for way in ways]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            self._client.close()
            self._server.close()

    def cut(self) -> None:
        """Reset both connections."""
        self._client.reset()
        self._server.reset()
        self._end.set()

    async def _up(self) -> None:
        while data := await self._client.read():
            if self.tap.from_client(data) and self.proxy.commit_faults:
                fault, tell = self.proxy.commit_faults.popleft()
                tell()
                if fault is CommitFault.NEVER_SENT:
                    self.cut()
                    return
                self._loses_reply = True
            await self._pass_on(data, self._server)

    async def _down(self) -> None:
        while data := await self._server.read():
            self.tap.from_server(data)
            if self._loses_reply:
                self.cut()
                return
            await self._pass_on(data, self._client)

    async def _pass_on(self, data: bytes, to: Stream) -> None:
        await self.is_open.wait()
        await self.proxy.is_open.wait()
        if self.proxy.delay:
            await asyncio.sleep(self.proxy.delay)
        if self.proxy.is_slicing:
            for at in range(min(SLICED, len(data))):
                await to.write(data[at : at + 1])
                await asyncio.sleep(0)
            data = data[SLICED:]
        await to.write(data)


class Stream:
    """One end of a connection."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._reader, self._writer = reader, writer
        end: socket.socket = writer.get_extra_info("socket")
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    @property
    def port(self) -> int:
        """Our own port of the connection; 0 once it is closed."""
        name = self._writer.get_extra_info("sockname")
        return int(name[1]) if name else 0

    async def read(self) -> bytes:
        with suppress(OSError):
            return await self._reader.read(65536)
        return b""

    async def write(self, data: bytes) -> None:
        with suppress(OSError):
            self._writer.write(data)
            await self._writer.drain()

    def close(self) -> None:
        self._writer.close()

    def reset(self) -> None:
        """Close it so that the other end is told of an error (RST)."""
        end: socket.socket = self._writer.get_extra_info("socket")
        with suppress(OSError):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()


class Proxy:
    """Listens on a port and passes on to a target. Its loop's thread calls it."""

    def __init__(self, target: Address, make_tap: Callable[[], Tap]) -> None:
        self.target = target
        self.make_tap = make_tap
        self.address = Address("127.0.0.1", free_port())
        self.links: set[Link] = set()
        #: Cleared: a black hole, for the connections there are and those to come.
        self.is_open = asyncio.Event()
        self.is_open.set()
        #: Seconds by which every chunk is late.
        self.delay = 0.0
        self.is_slicing = False
        #: What becomes of the next commits.
        self.commit_faults: deque[tuple[CommitFault, Callable[[], None]]] = deque()
        self._listener: asyncio.Server | None = None

    async def listen(self) -> None:
        if self._listener is None:
            self._listener = await asyncio.start_server(self._accept, *self.address)

    def arm(
        self, fault: CommitFault, times: int, tell: Callable[[], None] = lambda: None
    ) -> None:
        """Have a fault befall the next commits; each of them is told."""
        self.commit_faults.extend([(fault, tell)] * times)

    def disarm(self) -> None:
        """Let commits pass again."""
        self.commit_faults.clear()

    async def refuse(self) -> int:
        """Refuse connections, and cut those there are; return how many."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        return await self.cut_all()

    async def cut_all(self) -> int:
        links = list(self.links)
        for link in links:
            link.cut()
        return len(links)

    async def _accept(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        client = Stream(reader, writer)
        try:
            server = Stream(*await asyncio.open_connection(*self.target))
        except OSError:
            client.reset()
            return
        link = Link(self, client, server)
        self.links.add(link)
        try:
            await link.run()
        finally:
            self.links.discard(link)
