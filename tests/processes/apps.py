"""Receivers and imports that a test asks for by the environment of its worker."""

from __future__ import annotations

import os
from importlib import import_module

from django.apps import AppConfig


class ProcessesConfig(AppConfig):
    name = "tests.processes"

    def ready(self) -> None:
        if path := os.environ.get("JOBS_TEST_AUDIT"):
            _note_worker_signals(path)
        if name := os.environ.get("JOBS_TEST_IMPORT"):
            import_module(name)


def _note_worker_signals(path: str) -> None:
    from django_jobs.signals import worker_started, worker_stopped
    from tests.processes.tasks import audit

    def started(worker, **kwargs) -> None:
        audit(path, f"started {worker.id}")

    def stopped(worker, **kwargs) -> None:
        audit(path, f"stopped {worker.id}")

    worker_started.connect(started, weak=False)
    worker_stopped.connect(stopped, weak=False)
