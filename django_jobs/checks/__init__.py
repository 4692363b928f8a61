"""The system checks: what is wrong with a project's settings, and what to write.

``settings`` and ``tasks`` ask nobody; ``databases`` asks those databases that Django
was told to check.
"""

from __future__ import annotations

from django.core.checks import Tags, register

from django_jobs.checks.databases import check_databases
from django_jobs.checks.layout import check_layout
from django_jobs.checks.settings import check_settings
from django_jobs.checks.tasks import check_tasks

__all__ = [
    "check_databases",
    "check_layout",
    "check_settings",
    "check_tasks",
    "register_checks",
]


def register_checks() -> None:
    """Let ``manage.py check`` and all that it belongs to find our mistakes."""
    register(check_settings)
    register(check_layout)
    register(check_tasks)
    register(check_databases, Tags.database)
