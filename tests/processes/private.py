"""A PostgreSQL of a test's own, that may be given options and be hurt."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from django.core.management import call_command
from django.db import connection

from tests.processes.chaos.nursery import Nursery
from tests.processes.chaos.servers.base import mount_small
from tests.processes.chaos.servers.cluster import USER, Node
from tests.processes.chaos.servers.postgresql import programs


@contextmanager
def nursery() -> Iterator[Nursery]:
    """Lend a folder and processes that end with the test; skip without programs."""
    if programs() is None:
        pytest.skip("no PostgreSQL server is installed here")
    lent = Nursery()
    try:
        yield lent
    finally:
        lent.close()


def make_node(lent: Nursery, *configuration: str, wal_room: int = 0) -> Node:
    """Make a server that nobody follows; it is not started.

    Its WAL may have a file system of its own, of so many bytes.
    """
    node = Node(lent, "private")
    if wal_room:
        if not mount_small(node.wal, wal_room):
            pytest.skip("no file system can be mounted here")
        lent.give(node.wal, USER)
    node.initialise()
    with (node.data / "postgresql.conf").open("a") as file:
        file.write("\n".join(["", *configuration, ""]))
    return node


def environment(node: Node) -> dict[str, str]:
    """Return what a worker needs to have its queue there."""
    url = f"postgres://{USER}@127.0.0.1:{node.port}/postgres"
    names = {"DJANGO_JOBS_TEST_NAME_DEFAULT": "postgres"}
    return {"DJANGO_JOBS_TEST_POSTGRESQL_URL": url, **names}


@contextmanager
def queue_on(node: Node) -> Iterator[None]:
    """Have this process, too, use the tables there, which are made."""
    where = connection.settings_dict
    there = {"HOST": "127.0.0.1", "PORT": node.port, "NAME": "postgres", "USER": USER}
    before = {key: where[key] for key in there}
    connection.close()
    where.update(there)
    try:
        call_command("migrate", verbosity=0)
        yield
    finally:
        connection.close()
        where.update(before)
