"""Mistakes in ``TASKS`` that nobody else finds."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import django
from django.apps import apps
from django.core.checks import CheckMessage, Error, Warning
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from django_jobs.backend_settings import PATH, check_backend
from django_jobs.conf import readable_backends

#: How like ours a path must be to be taken for it: 1 is the same.
_LIKENESS = 0.85


def check_tasks_setting() -> list[CheckMessage]:
    """Return what is wrong with those aliases that are ours, or meant to be."""
    backends = readable_backends()
    ours = {
        alias: params
        for alias, params in backends.items()
        if _looks_ours(params["BACKEND"])
    }
    messages = list(_check_framework()) if ours else []
    for alias, params in ours.items():
        messages += _check_alias(str(alias), params)
    return messages


def _looks_ours(path: str) -> bool:
    if path.startswith("django_jobs.") or path.endswith(".JobsBackend"):
        return True
    return difflib.SequenceMatcher(None, path, PATH).ratio() > _LIKENESS


def _check_alias(alias: str, params: dict[str, Any]) -> Iterator[CheckMessage]:
    path = params["BACKEND"]
    is_right = path == PATH or _can_be_imported(path)
    if not is_right:
        yield Error(
            f"TASKS[{alias!r}]['BACKEND'] is {path!r}, which cannot be imported.",
            hint=f"Did you mean {PATH!r}?",
            id="django_jobs.E034",
        )
    # The framework asks the backends that it finds, where it is installed.
    if not is_right or (path == PATH and not _is_framework_installed()):
        options = params.get("OPTIONS", {})
        readable = options if isinstance(options, dict) else {}
        yield from check_backend(alias, params.get("QUEUES", []), readable)


def _can_be_imported(path: str) -> bool:
    try:
        import_string(path)
    except ImportError:
        return False
    except ImproperlyConfigured:
        # For want of the backport, which another message tells: it got as far as ours.
        return path.endswith(".JobsBackend") or not path.startswith("django_jobs.")
    return True


def _is_framework_installed() -> bool:
    return django.VERSION >= (6, 0) or apps.is_installed("django_tasks")


def _check_framework() -> Iterator[CheckMessage]:
    if django.VERSION >= (6, 0):
        return
    if find_spec("django_tasks") is None:
        yield Error(
            f"TASKS names JobsBackend, but Django {django.__version__} has no tasks.",
            hint="pip install 'django-jobworker[backport]', or take TASKS out: "
            "@django_jobs.task does not need it.",
            id="django_jobs.E010",
        )
    elif not apps.is_installed("django_tasks"):
        yield Warning(
            "TASKS names JobsBackend, but the app of the backport is not installed: "
            "its checks and its log are missing.",
            hint="Add 'django_tasks' to INSTALLED_APPS.",
            id="django_jobs.W002",
        )
