"""Where a task is now: it keeps its id while it moves through the three tables."""

from __future__ import annotations

from typing import Any

from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from django_jobs.admin.rendering import EMPTY
from django_jobs.models import DeadLetter, Result, Task
from django_jobs.store import get_store

TABLES = (Task, Result, DeadLetter)


def find_page(key: str, site: str) -> str | None:
    """Return the address of the page of a task in the table where it is now."""
    for model in TABLES:
        if model._default_manager.using(get_store().alias).filter(pk=key).exists():
            return _page(model._meta.model_name, key, site)
    return None


def names_of(keys: list[Any]) -> dict[Any, str]:
    """Return the names of tasks by id, with one query per table."""
    names: dict[Any, str] = {}
    for model in TABLES:
        rows = model._default_manager.using(get_store().alias).filter(pk__in=keys)
        names.update(rows.values_list("pk", "name"))
    return names


def link(key: object, text: str, site: str = "admin") -> SafeString | str:
    """Return a link to a task; its first page leads on to where it is."""
    if not key:
        return EMPTY
    return format_html('<a href="{}">{}</a>', _page("task", str(key), site), text)


def worker_link(key: object, text: str, site: str = "admin") -> SafeString | str:
    """Return a link to a worker that is registered."""
    return format_html('<a href="{}">{}</a>', _page("worker", str(key), site), text)


def _page(model: str | None, key: str, site: str) -> str:
    return reverse(f"admin:django_jobs_{model}_change", args=[key], current_app=site)
