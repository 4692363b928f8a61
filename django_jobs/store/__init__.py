"""The door to the store: one ``Store`` per database alias, by the vendor's dialect."""

from __future__ import annotations

from functools import cache
from importlib import import_module

from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.db import connections, router

from django_jobs.conf import conf
from django_jobs.exceptions import SetupError
from django_jobs.store.base import Store

__all__ = ["Store", "get_store"]

#: Module and class per ``connection.vendor``; MariaDB calls itself mysql there.
DIALECTS = {
    "postgresql": ("django_jobs.store.postgresql", "PostgreSQLStore"),
    "mysql": ("django_jobs.store.mysql", "MySQLStore"),
    "sqlite": ("django_jobs.store.sqlite", "SQLiteStore"),
}


def get_store(alias: str | None = None) -> Store:
    """Return the store of a database; without an alias, of the queue's own one.

    SetupError when the app is not installed.
    """
    try:
        return _store(alias or conf().DATABASE or _routed_alias())
    except RuntimeError as error:  # that a model belongs to no installed app
        if apps.ready and not apps.is_installed("django_jobs"):
            raise SetupError(
                "django_jobs is not installed in this project: add 'django_jobs' to "
                "INSTALLED_APPS and run manage.py migrate"
            ) from error
        raise


def _routed_alias() -> str:
    # Late: this module may be imported before the apps are loaded.
    from django_jobs.models import Task

    return router.db_for_write(Task)


@cache
def _store(alias: str) -> Store:
    vendor = connections[alias].vendor
    if vendor not in DIALECTS:
        raise ImproperlyConfigured(
            f"django_jobs does not know the database {vendor!r} of the alias "
            f"{alias!r}; it works on {', '.join(sorted(DIALECTS))}."
        )
    module, name = DIALECTS[vendor]
    # Late, as Django does for ENGINE: a dialect may need its driver.
    dialect: type[Store] = getattr(import_module(module), name)
    return dialect(alias)
