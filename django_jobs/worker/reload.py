"""Restart the worker when the project's code changes; for development."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.apps import apps
from django.utils import autoreload

from django_jobs import events

logger = logging.getLogger("django_jobs")

#: Set for a process that only tries whether the code can be loaded.
_TRIAL = "DJANGO_JOBS_RELOAD_TRIAL"


class Reloader:
    """Watches the code with Django's own reloader and stops the worker for it."""

    def __init__(self, stop: Callable[[str], None]) -> None:
        self.has_changed = False
        self._cancelled = threading.Event()
        self._stop = stop
        #: Set when there may be something to do: a change, or the end.
        self._news = threading.Event()

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
        self._news.set()
        if not self.has_changed:
            self.has_changed = True
            events.log(logger, logging.INFO, "code_changed", file=str(file_path))
            self._stop("the code changed")
        return True  # handled: Django's reloader shall not end the process

    def cancel(self, reason: str) -> None:
        """Let there be no restart; from a signal handler, also during the wait."""
        self._cancelled.set()
        self._news.set()

    def restart(self) -> None:
        """Replace this process by a new one with the same arguments.

        Code that cannot be loaded would end the new one, and nobody would watch any
        more: so that is tried first, and again at every change. Returns when the wait
        was cancelled.
        """
        arguments = autoreload.get_child_arguments()
        while not self._cancelled.is_set():
            self._news.clear()
            if not (complaint := _complaint(arguments)):
                sys.stdout.flush()
                os.execv(arguments[0], arguments)  # noqa: S606 - our own command line
            if self._cancelled.is_set():
                return
            events.log(
                logger,
                logging.ERROR,
                "code_broken",
                hint="the worker starts again when the code is mended",
                traceback=complaint,
            )
            self._news.wait()


def is_trial() -> bool:
    """Tell whether this process shall only load the code and end."""
    return _TRIAL in os.environ


def _complaint(arguments: list[str]) -> str:
    """Return why the worker cannot start with these arguments; empty when it can."""
    trial = subprocess.run(  # noqa: S603 - our own command line
        arguments,
        env={**os.environ, _TRIAL: "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    if trial.returncode == 0:
        return ""
    return trial.stderr.strip() or f"it ended with the status {trial.returncode}"
