"""Places from which one may want to enqueue: run as a program, and views of a site.

``python -m tests.processes.places <name>`` prints a line for each attempt.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import nullcontext

import django
from asgiref.sync import async_to_sync
from django.db import connection, transaction
from django.http import HttpRequest, HttpResponse
from django.urls import path

from tests.processes import tasks

SLOW = {
    "postgresql": "SELECT pg_sleep(0.6), 42",
    "mysql": "SELECT SLEEP(0.6), 42",
    "sqlite": "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n "
    "WHERE x < 1000000) SELECT max(x), 42 FROM n",
}


def enqueue(enqueue_it: Callable[[int, int], object] = tasks.add.enqueue) -> None:
    """Enqueue, and say what came of it in one write: threads do not mix."""
    try:
        enqueue_it(1, 1)
        said = "enqueued"
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
    os.write(1, f"{said}\n".encode())


def in_signal_handler() -> None:
    """Be struck in the middle of a query, then do what the error advises."""
    signal.signal(signal.SIGALRM, lambda *_: enqueue())
    for block in (nullcontext(), transaction.atomic()):
        with block, connection.cursor() as cursor:
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            cursor.execute(SLOW[connection.vendor])
            assert cursor.fetchone()[1] == 42  # it got its own answer
            enqueue()


def at_the_end() -> None:
    """From a thread that outlives the main one, then from handlers of the exit."""

    def wait_and_enqueue() -> None:
        threading.main_thread().join()
        enqueue()

    threading.Thread(target=wait_and_enqueue).start()
    atexit.register(enqueue, async_to_sync(tasks.add.aenqueue))
    atexit.register(enqueue)


def in_daemon_thread() -> None:
    """End in the middle of many."""
    many = threading.Event()

    def enqueue_for_ever() -> None:
        while True:
            enqueue()
            many.set()

    threading.Thread(target=enqueue_for_ever, daemon=True).start()
    many.wait()


# -- views --------------------------------------------------------------------------


async def awaits(request: HttpRequest) -> HttpResponse:
    result = await tasks.add.aenqueue(1, int(request.GET["number"]))
    return HttpResponse(result.id)


async def forgets_to_await(request: HttpRequest) -> HttpResponse:
    return HttpResponse(tasks.add.enqueue(1, 1).id)


def plain(request: HttpRequest) -> HttpResponse:
    with transaction.atomic():
        return HttpResponse(tasks.add.enqueue(1, int(request.GET["number"])).id)


urlpatterns = [
    path("awaits/", awaits),
    path("forgets/", forgets_to_await),
    path("plain/", plain),
]

if __name__ == "__main__":
    django.setup()
    globals()[sys.argv[1]]()
