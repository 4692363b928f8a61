"""Restart the worker when the project's code changes; for development."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.utils import autoreload

logger = logging.getLogger("django_jobs")


class Reloader:
    """Watches the code with Django's own reloader and stops the worker for it."""

    def __init__(self, stop: Callable[[str], None]) -> None:
        self.has_changed = False
        self._stop = stop

    def start(self) -> None:
        """Watch in a thread until the process ends."""
        autoreload.file_changed.connect(self._changed, weak=False)
        reloader = autoreload.get_reloader()
        main = threading.main_thread()
        threading.Thread(
            target=reloader.run, args=(main,), name="reloader", daemon=True
        ).start()

    def _changed(self, sender: Any, file_path: Path, **kwargs: Any) -> bool:
        if not self.has_changed:
            self.has_changed = True
            logger.info("event=code_changed file=%s", file_path)
            self._stop("the code changed")
        return True  # handled: Django's reloader shall not end the process

    @staticmethod
    def restart() -> None:
        """Replace this process by a new one with the same arguments."""
        arguments = autoreload.get_child_arguments()
        sys.stdout.flush()
        os.execv(arguments[0], arguments)  # noqa: S606 - our own command line
