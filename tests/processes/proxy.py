"""A way to a database server that a test can close, cut, let swallow or hold back."""

from __future__ import annotations

import selectors
import socket
import threading
from contextlib import suppress
from types import TracebackType

_LENGTH = 64 * 1024


class Proxy:
    """Passes bytes on between workers and a server, as long as it is told to.

    One thread does all of it. What the test says is done by the next byte: each
    method returns when it is.
    """

    def __init__(self, host: str, port: int) -> None:
        self._server = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.RLock()
        self._selector = selectors.DefaultSelector()
        self._peers: dict[socket.socket, socket.socket] = {}
        #: Connections that were there as the hole opened lead nowhere for ever.
        self._lost: set[socket.socket] = set()
        #: The ends of connections that are those to the server.
        self._to_server: set[socket.socket] = set()
        #: What clients have sent since then, of connections that are held back.
        self._held: dict[socket.socket, bytes] = {}
        self._is_swallowing = False
        self._is_over = False
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._is_over = True
        self._thread.join()
        self.refuse()
        self._selector.close()

    # -- what the test says ------------------------------------------------------------

    def refuse(self) -> None:
        """Cut all connections and refuse new ones, as a host without a server does."""
        with self._lock:
            if self._listener.fileno() >= 0:
                self._selector.unregister(self._listener)
                self._listener.close()
            for one in list(self._peers):
                self._close(one)

    def accept(self) -> None:
        """Let connections through again, those that come from now on."""
        with self._lock:
            self._listener = socket.create_server(("127.0.0.1", self.port))
            self._selector.register(self._listener, selectors.EVENT_READ)

    def swallow(self) -> None:
        """Take every byte and deliver none; connections are made and stay open."""
        with self._lock:
            self._is_swallowing = True
            self._lost.update(self._peers)

    def heal(self) -> None:
        """Deliver again; what was connected before leads nowhere for ever."""
        with self._lock:
            self._is_swallowing = False

    def give_up(self) -> None:
        """Tell the server of what leads nowhere, as its own timeouts would."""
        with self._lock:
            for one in self._lost & self._to_server:
                self._close(one)

    def hold(self) -> None:
        """Keep what clients send on the connections that there are, to deliver it."""
        with self._lock:
            clients = self._peers.keys() - self._to_server - self._lost
            self._held.update(dict.fromkeys(clients, b""))

    def deliver(self) -> None:
        """Deliver what was held back; nobody hears the answers."""
        with self._lock:
            for client, data in self._held.items():
                self._peers[client].sendall(data)

    # -- in the thread -----------------------------------------------------------------

    def _run(self) -> None:
        while not self._is_over:
            for key, _ in self._selector.select(0.02):
                with self._lock, suppress(OSError, ValueError):
                    self._serve(key.fileobj)  # type: ignore[arg-type]

    def _serve(self, ready: socket.socket) -> None:
        if ready is self._listener:
            self._connect(ready.accept()[0])
        elif ready in self._peers:
            self._pass_on(ready)

    def _connect(self, client: socket.socket) -> None:
        server = socket.create_connection(self._server)
        self._to_server.add(server)
        for one, other in ((client, server), (server, client)):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._peers[one] = other
            self._selector.register(one, selectors.EVENT_READ)
        if self._is_swallowing:
            self._lost.update((client, server))

    def _pass_on(self, one: socket.socket) -> None:
        try:
            data = one.recv(_LENGTH)
            if data and self._is_open(one):
                self._peers[one].sendall(data)
        except OSError:
            data = b""
        if one in self._held:
            self._held[one] += data
        if not data:
            self._end(one)

    def _is_open(self, one: socket.socket) -> bool:
        return not {one, self._peers[one]} & (self._lost | self._held.keys())

    def _end(self, one: socket.socket) -> None:
        """Close a connection; through a hole, the other end does not hear of it."""
        if one in self._held:
            self._selector.unregister(one)  # what it has sent is still on its way
            return
        if one not in self._lost:
            self._close(self._peers[one])
        self._close(one)

    def _close(self, one: socket.socket) -> None:
        with suppress(KeyError):  # it has ended before
            self._selector.unregister(one)
        del self._peers[one]
        self._lost.discard(one)
        self._held.pop(one, None)
        self._to_server.discard(one)
        one.close()
