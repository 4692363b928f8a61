"""An empty database for one test, which may do with its tables what it likes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path

from django.core.management import call_command
from django.db import connections

#: Its alias while it is there.
SCRATCH = "scratch"
_numbers = itertools.count(1)
_CREATE = {
    "postgresql": "CREATE DATABASE {name}",
    "mysql": "CREATE DATABASE {name} CHARACTER SET utf8mb4",
}
_DROP = {
    "postgresql": "DROP DATABASE IF EXISTS {name} WITH (FORCE)",
    "mysql": "DROP DATABASE IF EXISTS {name}",
}


@contextmanager
def scratch_database(folder: Path) -> Iterator[str]:
    """Make a database on the server of the run; yield its name."""
    usual = connections["default"]
    name = f"{Path(usual.settings_dict['NAME']).stem}_{next(_numbers)}"
    if usual.vendor == "sqlite":
        name = str(folder / f"{name}.sqlite3")
    _on_server(_CREATE, name)
    connections.settings[SCRATCH] = {**deepcopy(usual.settings_dict), "NAME": name}
    try:
        yield name
    finally:
        connections[SCRATCH].close()
        del connections[SCRATCH], connections.settings[SCRATCH]
        _on_server(_DROP, name)


def migrate(*target: str) -> None:
    """Migrate the queue there, to its newest migration or to the one named."""
    call_command("migrate", "django_jobs", *target, database=SCRATCH, verbosity=0)


def _on_server(words: dict[str, str], name: str) -> None:
    usual = connections["default"]
    if usual.vendor in words:
        with usual._nodb_cursor() as cursor:
            cursor.execute(words[usual.vendor].format(name=name))
