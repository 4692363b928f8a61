"""A task that no autodiscovery finds: the backend's OPTIONS name this module."""

from __future__ import annotations

import django

if django.VERSION >= (6, 0):
    from django.tasks import task
else:
    from django_tasks import task


@task
def hidden() -> str:
    return "found"
