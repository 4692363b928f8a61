"""Loaded once by the process that forks the children: the project and its tasks."""

from __future__ import annotations

import atexit
import gc
import os
import shutil
import signal
from contextlib import suppress

import django

from django_jobs.worker import inherited, processes
from django_jobs.worker.orphans import children_of

#: What of the project the children cannot use; the worker says it.
LEFT: dict[str, list[str]] = {}


def prepare() -> None:
    """Load all apps, close what they opened, and keep their memory shared."""
    inherited.note_own()
    django.setup()

    # Only now: these need the settings that setup() has read.
    from django_jobs.worker import coroutines, executor  # noqa: F401 - shared

    inherited.close_connections()
    LEFT.update(inherited.find())
    gc.collect()
    gc.freeze()  # the collector of a child does not touch, and so copy, these pages


# A worker that is killed, or replaces itself, cannot clean up: this process ends by
# itself when it is gone. A worker that is not makes the folder again.
_folder = os.environ.pop("DJANGO_JOBS_FORK_SERVER_FOLDER", "")


@atexit.register
def _remove_folder() -> None:
    if _folder:
        shutil.rmtree(_folder, ignore_errors=True)


def _leave_with_worker(number: int, frame: object) -> None:
    """End with the worker, and its children at once: one in C code hears of nothing.

    Others get this signal too when the worker's terminal is closed.
    """
    if os.getpid() == _ME and os.getppid() != _WORKER:
        with suppress(OSError):
            for pid in children_of(_ME):
                processes.kill_with_group(pid)
        _remove_folder()
        # Not by an exception: a worker that stops has this process end by itself, and
        # one that comes out of the interpreter's own end is written to the log.
        os._exit(0)


_ME, _WORKER = os.getpid(), os.getppid()
signal.signal(signal.SIGHUP, _leave_with_worker)
processes.signal_end_of_parent(signal.SIGHUP)
# A signal to the whole process group is meant for the parent: if this process died,
# its children would die with it, and running tasks would count as crashed.
for _number in (signal.SIGTERM, signal.SIGQUIT):
    signal.signal(_number, signal.SIG_IGN)

try:
    prepare()
except Exception as _error:
    FAILURE: BaseException | None = _error
else:
    FAILURE = None
