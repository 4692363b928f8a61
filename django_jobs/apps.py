"""The app: finds the tasks of all installed apps and registers the system checks."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

import django
from django.apps import AppConfig
from django.utils.module_loading import autodiscover_modules
from django.utils.translation import gettext_lazy as _

from django_jobs.conf import find_backend_problems, readable_backends

_BACKEND = "django_jobs.backend.JobsBackend"


class DjangoJobsConfig(AppConfig):
    name = "django_jobs"
    verbose_name = _("Jobs")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        # Late, as everything that may need the settings or the models of other apps.
        from django_jobs import checks

        checks.register_checks()
        autodiscover_modules("tasks")
        if find_backend_problems():
            return  # a check of ours says so, where Django's would raise
        if django.VERSION >= (6, 0):
            import_module("django.tasks")  # registers its own system check
        _load_tasks_of_backends()


def _load_tasks_of_backends() -> None:
    """Make tasks of Django's decorator known, wherever they are declared."""
    aliases = [
        alias
        for alias, params in readable_backends().items()
        if params["BACKEND"] == _BACKEND
    ]
    if not aliases or (django.VERSION < (6, 0) and not find_spec("django_tasks")):
        return  # without the backport there is nothing to serve; a check says so
    # Late: the adapter is imported only where it is configured.
    from django_jobs.backend import JobsBackend
    from django_jobs.backend.api import task_backends

    for alias in aliases:
        backend = task_backends[alias]
        if isinstance(backend, JobsBackend):
            backend.load_modules()
