"""What can be wrong with an alias of ``TASKS`` that names ``JobsBackend``.

Here, and not with the backend: without the backport there is none, but its settings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core.checks import CheckMessage, Error

from django_jobs.options import did_you_mean

#: The path of ``JobsBackend`` as it is documented.
PATH = "django_jobs.backend.JobsBackend"


def check_backend(
    alias: str, queues: Any, options: dict[str, Any]
) -> Iterator[CheckMessage]:
    """Find mistakes in the settings of an alias, as they were given."""
    place = f"TASKS[{alias!r}]"
    if not apps.is_installed("django_jobs"):
        yield Error(
            f"{place} names JobsBackend, but its app is not installed.",
            hint="Add 'django_jobs' to INSTALLED_APPS and run manage.py migrate.",
            id="django_jobs.E030",
        )
    if not _are_names(queues):
        yield Error(
            f"{place}['QUEUES'] is no list of names: {queues!r:.100}",
            hint="Write ['default', 'mail'], or [] for queues of any name.",
            id="django_jobs.E031",
        )
    for key, value in options.items():
        yield from _check_option(f"{place}['OPTIONS']", key, value)


def _check_option(place: str, key: str, value: Any) -> Iterator[CheckMessage]:
    if key not in _OPTIONS:
        hint = did_you_mean(str(key), _OPTIONS).strip()
        known = ", ".join(_OPTIONS)
        yield Error(
            f"{place} has no key {key!r}.",
            hint=hint or f"The keys are {known}.",
            id="django_jobs.E032",
        )
        return
    is_right, words = _OPTIONS[key]
    if not is_right(value):
        yield Error(
            f"{place}[{key!r}] must be {words}, not {value!r:.100}.",
            hint="Correct it, or leave it out.",
            id="django_jobs.E033",
        )


def _are_names(queues: Any) -> bool:
    is_list = isinstance(queues, (list, tuple, set, frozenset))
    return is_list and all(isinstance(each, str) for each in queues)


def _is_database(value: Any) -> bool:
    return value is None or (isinstance(value, str) and value in settings.DATABASES)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _are_modules(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(map(_is_module, value))


def _is_module(name: Any) -> bool:
    try:
        return isinstance(name, str) and find_spec(name) is not None
    except (ImportError, ValueError):
        return False


_OPTIONS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "DATABASE": (_is_database, "an alias of DATABASES"),
    "MAX_ATTEMPTS": (_is_count, "a whole number, 1 or more"),
    "ENQUEUE_ON_COMMIT": (lambda value: isinstance(value, bool), "True or False"),
    "MODULES": (_are_modules, "a list of modules that can be imported"),
}
