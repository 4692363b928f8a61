"""What others do in ready() against all advice."""

from __future__ import annotations

import os
import threading
from typing import Any

from django.apps import AppConfig

#: What the module of the app holds for ever.
KEPT: list[Any] = []


class EarlyConfig(AppConfig):
    name = "tests.processes.early"

    def ready(self) -> None:
        wanted = os.environ.get("EARLY", "").split()
        if "ready" in wanted:
            ask()
        if "thread" in wanted:
            has_asked = threading.Event()
            threading.Thread(
                target=_ask_and_stay, args=(has_asked,), name="poller", daemon=True
            ).start()
            has_asked.wait()
        if "driver" in wanted:
            KEPT.append(connect_past_django())


def ask() -> None:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")


def _ask_and_stay(has_asked: threading.Event) -> None:
    ask()
    has_asked.set()
    threading.Event().wait()


def connect_past_django() -> Any:
    """Return a connection that Django knows nothing of."""
    from django.db import connection

    return connection.get_new_connection(connection.get_connection_params())
