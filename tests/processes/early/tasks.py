"""Tasks of a module that asks the database while it is imported."""

from __future__ import annotations

import os
from typing import Any

from django.db import connection

from django_jobs import task
from tests.processes.early import apps

if "import" in os.environ.get("EARLY", "").split():
    apps.ask()

SESSION = {"postgresql": "SELECT pg_backend_pid()", "mysql": "SELECT connection_id()"}


@task
def sessions() -> list[int]:
    """Return the process and the sessions that it uses, as the server names them."""
    found = [os.getpid()]
    if connection.vendor in SESSION:
        found.append(_session_of(connection))
    if apps.KEPT and connection.vendor in SESSION:
        found.append(_session_kept())
    return found


def _session_kept() -> int:
    """Ask the connection that the module keeps; replace it when it was closed."""
    try:
        return _session_of(apps.KEPT[0])
    except connection.Database.Error:
        apps.KEPT[:] = [apps.connect_past_django()]
        return _session_of(apps.KEPT[0])


def _session_of(any_connection: Any) -> int:
    with any_connection.cursor() as cursor:
        cursor.execute(SESSION[connection.vendor])
        number: int = cursor.fetchone()[0]
        return number
