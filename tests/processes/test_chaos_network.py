"""The proxy of the chaos: it knows a commit, and does to it what it is told."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from tests.processes.chaos.network.network import Network
from tests.processes.chaos.network.proxy import CommitFault, Proxy
from tests.processes.chaos.network.taps import MySQLTap, PostgreSQLTap, Tap
from tests.processes.chaos.servers.base import Address
from tests.processes.harness import wait_for

START = struct.pack("!II", 8, 196608)
IDLE, OPEN = b"Z\0\0\0\5I", b"Z\0\0\0\5T"


def postgres(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!I", 4 + len(body)) + body


def query(text: str) -> bytes:
    return postgres(b"Q", text.encode() + b"\0")


def mysql(text: str) -> bytes:
    body = b"\3" + text.encode()
    return len(body).to_bytes(3, "little") + b"\0" + body


def test_postgresql_commits_by_commit_or_outside_of_a_transaction() -> None:
    tap = PostgreSQLTap()
    assert not tap.from_client(START)
    assert tap.from_client(query("INSERT INTO a VALUES (1)"))
    assert not tap.from_client(query("SELECT 1"))
    assert not tap.from_client(query("BEGIN"))
    tap.from_server(b"..." + OPEN)
    assert not tap.from_client(query("INSERT INTO a VALUES (1)"))
    assert tap.from_client(query("COMMIT"))
    tap.from_server(b"..." + IDLE)
    assert not tap.is_listening
    tap.from_client(query("LISTEN here"))
    assert tap.is_listening


def test_postgresql_knows_a_prepared_statement_by_its_name() -> None:
    tap = PostgreSQLTap()
    tap.from_client(START)
    parse = postgres(b"P", b"name\0DELETE FROM a\0\0\0")
    bind = postgres(b"B", b"\0name\0\0\0\0\0\0\0")
    assert not tap.from_client(parse)
    assert tap.from_client(bind + postgres(b"S", b""))
    assert not tap.from_client(postgres(b"B", b"\0other\0\0\0\0\0\0\0"))


def test_a_message_in_two_chunks_is_one_message() -> None:
    tap = PostgreSQLTap()
    tap.from_client(START)
    message = query("SELECT '" + 100 * "x" + "'") + query("INSERT INTO a VALUES (1)")
    assert not tap.from_client(message[:60])
    assert tap.from_client(message[60:])


def test_mysql_commits_by_commit_or_with_autocommit() -> None:
    tap = MySQLTap()
    assert not tap.from_client(b"\1\0\0\1.")  # an answer of the handshake
    assert tap.from_client(mysql("INSERT INTO a VALUES (1)"))
    assert not tap.from_client(mysql("SET AUTOCOMMIT = 0"))
    assert not tap.from_client(mysql("INSERT INTO a VALUES (1)"))
    assert tap.from_client(mysql("COMMIT"))


class Commits(Tap):
    """Takes every chunk for a commit."""

    def from_client(self, data: bytes) -> bool:
        return True


@pytest.fixture
def echo() -> Iterator[tuple[Address, list[bytes]]]:
    """A server that notes what it gets and answers the same."""
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve(end: socket.socket) -> None:
            with end, suppress(OSError):
                while data := end.recv(1000):
                    heard.append(data)
                    end.sendall(data)

        def accept() -> None:
            with suppress(OSError):
                while True:
                    end, _ = listener.accept()
                    threading.Thread(target=serve, args=[end], daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield Address(*listener.getsockname()), heard
        listener.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def network() -> Iterator[Network]:
    network = Network(Commits)
    network.start()
    yield network
    network.close()


@pytest.fixture
def client(
    network: Network, echo: tuple[Address, list[bytes]]
) -> Iterator[Callable[[], socket.socket]]:
    """Return a function that connects by a proxy."""
    [address] = network.add_route("host", [echo[0]])
    ends: list[socket.socket] = []

    def connect() -> socket.socket:
        ends.append(socket.create_connection(address, timeout=5))
        return ends[-1]

    yield connect
    for end in ends:
        end.close()


def proxy_of(network: Network) -> Proxy:
    return network.routes["host"][0]


def exchange(end: socket.socket, data: bytes) -> bytes:
    """Send something and return the answer, b"" when the connection is lost."""
    answer = b""
    try:
        end.sendall(data)
        while len(answer) < len(data):
            if not (more := end.recv(1000)):
                return b""
            answer += more
    except ConnectionError:
        return b""
    return answer


Client = Callable[[], socket.socket]
Echo = tuple[Address, list[bytes]]


def test_a_commit_whose_reply_is_lost_reaches_the_server(
    network: Network, client: Client, echo: Echo
) -> None:
    hits: list[str] = []
    proxy_of(network).arm(CommitFault.REPLY_LOST, 1, lambda: hits.append("hit"))
    assert hits == []
    assert exchange(client(), b"commit") == b""
    assert hits == ["hit"]
    assert echo[1] == [b"commit"]
    assert exchange(client(), b"again") == b"again"


def test_a_commit_that_is_never_sent_does_not_reach_the_server(
    network: Network, client: Client, echo: Echo
) -> None:
    proxy_of(network).arm(CommitFault.NEVER_SENT, 1)
    assert exchange(client(), b"commit") == b""
    assert echo[1] == []


def test_a_commit_passes_once_the_fault_is_disarmed(
    network: Network, client: Client
) -> None:
    proxy = proxy_of(network)
    proxy.arm(CommitFault.NEVER_SENT, 2)
    assert exchange(client(), b"commit") == b""
    proxy.disarm()
    assert exchange(client(), b"commit") == b"commit"


def test_the_server_sees_a_client_by_a_port_that_tells_its_host(
    network: Network, client: Client, echo: Echo
) -> None:
    end = client()
    assert exchange(end, b"x") == b"x"
    [port] = network.hosts_by_port()
    assert network.hosts_by_port() == {port: "host"}
    assert port != end.getsockname()[1]


def test_connections_are_cut_and_refused(network: Network, client: Client) -> None:
    end = client()
    assert exchange(end, b"x") == b"x"
    assert network.call(proxy_of(network).refuse) == 1
    wait_for(lambda: not proxy_of(network).links, 10, "the connection is gone")
    assert exchange(end, b"x") == b""
    with pytest.raises(ConnectionRefusedError):
        client()
    network.call(proxy_of(network).listen)
    assert exchange(client(), b"x") == b"x"


def test_what_a_black_hole_has_swallowed_arrives_when_it_is_gone(
    network: Network, client: Client
) -> None:
    async def set_open(is_open: bool) -> None:
        event = proxy_of(network).is_open
        event.set() if is_open else event.clear()

    end = client()
    network.call(set_open, False)
    end.settimeout(0.3)
    with pytest.raises(TimeoutError):
        exchange(end, b"x")
    network.call(set_open, True)
    end.settimeout(5)
    assert end.recv(1000) == b"x"


def test_a_slow_network_slices_and_loses_nothing(
    network: Network, client: Client
) -> None:
    proxy = proxy_of(network)
    proxy.delay, proxy.is_slicing = 0.1, True
    begin = time.monotonic()
    assert exchange(client(), 500 * b"x") == 500 * b"x"
    assert time.monotonic() - begin > 0.2
