"""The app of the tables and tasks of a run."""

from __future__ import annotations

import faulthandler
import signal

from django.apps import AppConfig


class ChaosConfig(AppConfig):
    name = "tests.processes.chaos"
    label = "chaos"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        # Where all threads are, for the log of a process that does not stop.
        faulthandler.register(signal.SIGUSR1)
