"""A part of a child that fails takes the whole process along: a death is noticed."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django_jobs import events
from django_jobs.worker import processes

logger = logging.getLogger("django_jobs")


@contextmanager
def to_the_death(event: str, **fields: Any) -> Iterator[None]:
    """Kill this process when that fails, whoever else runs in it.

    The parent notices a death. Of a thread that ended, or a coroutine, it would hear
    nothing, and the task would count as running for ever.
    """
    try:
        yield
    except BaseException as error:
        try:
            # Without a parent there is nobody to tell.
            if not isinstance(error, (EOFError, ConnectionError)):
                events.log(logger, logging.CRITICAL, event, exc_info=True, **fields)
        finally:
            processes.kill_with_group(os.getpid())
