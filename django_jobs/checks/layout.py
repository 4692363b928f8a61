"""Mistakes in ``DATABASES`` and the routers, as far as the settings show them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning
from django.db import connections, router

from django_jobs.conf import OURS, readable_backends, readable_conf, wrong_keys
from django_jobs.store import DIALECTS

#: Seconds that SQLite should wait for the one who writes.
_SHORTEST_WAIT = 10
#: Ports at which poolers listen by custom.
_POOLER_PORTS = {"6432", "6543"}


def queue_aliases() -> list[str]:
    """Return the databases that have a queue."""
    aliases = dict.fromkeys([*_own_alias(), *_aliases_of_backends()])
    return [alias for alias in aliases if alias in settings.DATABASES]


def _own_alias() -> Iterator[str]:
    """Yield the alias of the queue itself, unless nobody can tell which was meant."""
    from django_jobs.models import Task  # late: checks are registered before models

    if "DATABASE" not in wrong_keys(getattr(settings, "DJANGO_JOBS", {})):
        yield readable_conf().DATABASE or router.db_for_write(Task)


def _aliases_of_backends() -> Iterator[str]:
    for params in readable_backends().values():
        is_ours = params["BACKEND"].startswith(OURS)
        if is_ours and isinstance(
            alias := params.get("OPTIONS", {}).get("DATABASE"), str
        ):
            yield alias


def check_layout(**kwargs: Any) -> list[CheckMessage]:
    """Return what is wrong with the databases of the queues and the ways to them."""
    messages: list[CheckMessage] = []
    for alias in queue_aliases():
        connection = connections[alias]
        messages += _check_engine(connection)
        messages += _check_routers(alias)
        if connection.vendor == "sqlite":
            messages += _check_sqlite(connection)
        elif connection.vendor == "postgresql":
            messages += _check_postgresql(connection)
    return messages


def _check_engine(connection: Any) -> Iterator[CheckMessage]:
    where = f"DATABASES[{connection.alias!r}]"
    if connection.vendor not in DIALECTS:
        yield Error(
            f"{where} is {connection.display_name}, on which the queue does not work.",
            hint="Set DJANGO_JOBS['DATABASE'] to an alias of PostgreSQL, MySQL, "
            "MariaDB or SQLite.",
            id="django_jobs.E011",
        )
    if not connection.settings_dict["AUTOCOMMIT"]:
        yield Error(
            f"{where} has AUTOCOMMIT off: what the worker writes is never committed.",
            hint="Take 'AUTOCOMMIT' out.",
            id="django_jobs.E012",
        )


def _check_routers(alias: str) -> Iterator[CheckMessage]:
    from django_jobs.models import Task  # late: checks are registered before models

    if alias not in _own_alias():
        return  # of a further queue, which no router can know
    elsewhere = {router.db_for_read(Task), router.db_for_write(Task)} - {alias}
    if elsewhere:
        yield Warning(
            f"The queue is in {alias!r}, but a router sends reads or writes of its "
            f"tables to {', '.join(sorted(elsewhere))}: the admin shows other rows, or "
            "old ones.",
            hint="Return the same alias from db_for_read() and db_for_write() for the "
            "app label 'django_jobs'.",
            id="django_jobs.W003",
        )
    if not router.allow_migrate_model(alias, Task):
        yield Error(
            f"The queue is in {alias!r}, where a router forbids its tables.",
            hint="Return True from allow_migrate() for the app label 'django_jobs', "
            f"and run manage.py migrate --database {alias}.",
            id="django_jobs.E013",
        )


def _check_sqlite(connection: Any) -> Iterator[CheckMessage]:
    where = f"DATABASES[{connection.alias!r}]"
    options = connection.settings_dict["OPTIONS"]
    if connection.settings_dict["NAME"] == ":memory:":
        yield Warning(
            f"{where} is in memory: workers are processes of their own and see "
            "nothing of it.",
            hint="Give 'NAME' the path of a file.",
            id="django_jobs.W004",
        )
    # Django takes it in any case.
    mode = str(options.get("transaction_mode")).upper()
    if mode not in ("IMMEDIATE", "EXCLUSIVE"):
        yield Warning(
            f"{where} begins transactions deferred: one that reads and then writes "
            "fails at once with 'database is locked' when another one writes.",
            hint="Add 'transaction_mode': 'IMMEDIATE' to its OPTIONS.",
            id="django_jobs.W005",
        )
    if options.get("timeout", 5.0) < _SHORTEST_WAIT:
        yield Warning(
            f"{where} waits only {options.get('timeout', 5.0):g} s for another writer.",
            hint="Add 'timeout': 20 to its OPTIONS.",
            id="django_jobs.W006",
        )


def _check_postgresql(connection: Any) -> Iterator[CheckMessage]:
    given = connection.settings_dict
    if given["OPTIONS"].get("pool") and given["CONN_MAX_AGE"] != 0:
        yield Error(
            f"DATABASES[{connection.alias!r}] has a pool and a CONN_MAX_AGE, which "
            "Django refuses at the first query.",
            hint="Take 'CONN_MAX_AGE' out.",
            id="django_jobs.E014",
        )
    if _listens_at(connection.alias) and _looks_pooled(given):
        yield Warning(
            f"DATABASES[{connection.alias!r}] looks like a pooler "
            f"({given['HOST']}:{given['PORT']}), which may swallow notifications: "
            "workers then find tasks by polling.",
            hint="Set DJANGO_JOBS['LISTEN_DATABASE'] to an alias with a direct "
            "connection, or 'NOTIFY' to False.",
            id="django_jobs.W007",
        )


def _listens_at(alias: str) -> bool:
    """Tell whether a worker listens for notifications on a connection of the alias."""
    given = readable_conf()
    return given.NOTIFY and given.LISTEN_DATABASE in (None, alias)


def _looks_pooled(given: dict[str, Any]) -> bool:
    host = str(given["HOST"]).lower()
    return str(given["PORT"]) in _POOLER_PORTS or "pool" in host or "bouncer" in host
