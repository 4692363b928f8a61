"""Ends a process that a coroutine has forked and forgot to end.

The copy has the loop and the threads' queues with all that waits there, and would go
on as if it were the worker's child. Only what forked may go on, until it awaits or is
over. asyncio and the pools of threads offer no way to say so: what they keep is
replaced.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from contextlib import suppress
from queue import Empty
from typing import Any, NoReturn

from asgiref.sync import SyncToAsync


class _NoMore(deque[Any]):
    """In place of the calls that a loop has ready: the first one ends the process."""

    def popleft(self) -> NoReturn:
        os._exit(0)


class _LastItem:
    """In place of the calls that a thread of a pool has to do."""

    def run(self, *args: object) -> NoReturn:
        os._exit(0)


def end_with_this_call(loop: Any) -> None:
    """In a copy: let nothing follow the call that forked, in the loop or in a pool.

    A loop of another make than asyncio's is stopped only.
    """
    with suppress(AttributeError):
        loop._ready = _NoMore()
    loop.stop()
    for pool in (SyncToAsync.single_thread_executor, _default_pool(loop)):
        if pool is not None and threading.current_thread() in pool._threads:
            _end_pool(pool)


def _default_pool(loop: Any) -> Any:
    return getattr(loop, "_default_executor", None)


def _end_pool(pool: Any) -> None:
    with suppress(Empty):
        while True:
            pool._work_queue.get_nowait()
    pool._work_queue.put(_LastItem())
