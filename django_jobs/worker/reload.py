"""Restart the worker when the project's code changes; for development."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from django.apps import apps
from django.utils import autoreload

from django_jobs import events

logger = logging.getLogger("django_jobs")

#: Set for a process that only tries whether the code can be loaded.
_TRIAL = "DJANGO_JOBS_RELOAD_TRIAL"
#: Seconds between two looks at what the signals and the reloader have said.
_TICK = 0.1
#: Seconds that a process gets to end by itself before it is killed.
_PATIENCE = 2.0


class Reloader:
    """Watches the code with Django's own reloader and stops the worker for it."""

    def __init__(self, stop: Callable[[str], None]) -> None:
        self.has_changed = False
        self._stop = stop
        # Plain flags, looked at every so often: a signal handler that takes the lock
        # of an event, while the main thread waits for that event, never returns.
        self._is_cancelled = False
        self._has_news = False

    def start(self) -> None:
        """Watch in a thread until the process ends."""
        autoreload.file_changed.connect(self._changed, weak=False)
        reloader = autoreload.get_reloader()
        # Also files that are not imported yet, as those that broken code asks for.
        for config in apps.get_app_configs():
            if "site-packages" not in Path(config.path).parts:
                reloader.watch_dir(Path(config.path), "**/*.py")
        main = threading.main_thread()
        threading.Thread(
            target=reloader.run, args=(main,), name="reloader", daemon=True
        ).start()

    def _changed(self, sender: Any, file_path: Path, **kwargs: Any) -> bool:
        self._has_news = True
        if not self.has_changed:
            self.has_changed = True
            events.log(logger, logging.INFO, "code_changed", file=str(file_path))
            self._stop("the code changed")
        return True  # handled: Django's reloader shall not end the process

    def cancel(self, reason: str) -> None:
        """Let there be no restart; from a signal handler, at any time."""
        self._is_cancelled = True

    def restart(self) -> None:
        """Replace this process by a new one with the same arguments.

        Code that cannot be loaded would end the new one, and nobody would watch any
        more: so that is tried first, and again at every change. Returns when it was
        cancelled.
        """
        _end_helpers()
        arguments = autoreload.get_child_arguments()
        while not self._is_cancelled:
            self._has_news = False
            complaint = self._complaint(arguments)
            if complaint == "":
                sys.stdout.flush()
                os.execv(arguments[0], arguments)  # noqa: S606 - our own command line
            if complaint:
                _say_broken(complaint)
                self._wait(lambda: self._has_news)

    def _wait(self, is_over: Callable[[], bool]) -> None:
        """Wait for something to be so, or for the end of it all."""
        while not (self._is_cancelled or is_over()):
            time.sleep(_TICK)

    def _complaint(self, arguments: list[str]) -> str | None:
        """Return why the worker cannot start with these arguments, "" if it can.

        None when the trial was cancelled.
        """
        # A file, since a pipe has an end only when all that the code starts has.
        with tempfile.TemporaryFile() as errors:
            trial = subprocess.Popen(  # noqa: S603 - our own command line
                arguments,
                env={**os.environ, _TRIAL: "1"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
            )
            try:
                self._wait(lambda: trial.poll() is not None)
            finally:
                _end(trial)
            errors.seek(0)
            said = errors.read().decode(errors="replace").strip()
        if self._is_cancelled:
            return None
        if trial.returncode == 0:
            return ""
        return said or f"it ended with the status {trial.returncode}"


def is_trial() -> bool:
    """Tell whether this process shall only load the code and end."""
    return _TRIAL in os.environ


def _say_broken(complaint: str) -> None:
    events.log(
        logger,
        logging.ERROR,
        "code_broken",
        hint="the worker starts again when the code is mended",
        traceback=complaint,
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    """Have a process end now, if it still runs, and take leave of it."""
    process.terminate()
    try:
        process.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _end_helpers() -> None:
    """End the processes that multiprocessing has started for us.

    The process that takes our place keeps our number and does not know of them: nobody
    would wait for them any more. The fork server first: it uses the other one.
    """
    from multiprocessing import forkserver, resource_tracker

    # Not public, though there in all versions so far: without them, as before.
    with suppress(AttributeError):
        server: Any = forkserver._forkserver
        _end_helper(server._stop, server._forkserver_pid)
    with suppress(AttributeError):
        tracker: Any = resource_tracker._resource_tracker
        _end_helper(tracker._stop, tracker._pid)


def _end_helper(stop: Callable[[], None], pid: int | None) -> None:
    """Call what ends a process and waits for it; kill that when it takes too long."""

    def call() -> None:
        with suppress(Exception):  # its socket, say, is gone already
            stop()

    waiting = threading.Thread(target=call, name="helper-end", daemon=True)
    waiting.start()
    waiting.join(_PATIENCE)
    if waiting.is_alive() and pid is not None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        waiting.join(_PATIENCE)
