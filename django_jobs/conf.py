"""The one reader of ``settings.DJANGO_JOBS``, and of what ``TASKS`` is made of."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, fields
from datetime import timedelta
from functools import cache
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed

from django_jobs.exceptions import seconds

#: How the paths of our backends for ``TASKS`` start.
OURS = "django_jobs."


@dataclass(frozen=True, slots=True, kw_only=True)
class Conf:
    """The settings; every field is a key of ``DJANGO_JOBS``. Times are in seconds."""

    #: Alias of the queue's database; None asks the router where ``Task`` is written.
    DATABASE: str | None = None
    #: Names that a task may be enqueued to; empty means any.
    QUEUES: tuple[str, ...] = ()
    DEFAULT_QUEUE: str = "default"
    #: Attempts of a task, the first included.
    MAX_ATTEMPTS: int = 3
    #: First and longest wait between two attempts.
    BACKOFF_BASE: float = 5.0
    BACKOFF_CAP: float = 3600.0
    #: Limits of a run, where the task declares none.
    TIME_LIMIT: float | None = None
    SOFT_TIME_LIMIT: float | None = None
    #: How often a task may take its process or worker with it.
    CRASH_BUDGET: int = 3
    #: How long results and dead letters are kept; None for ever.
    RESULT_RETENTION: float | None = 7 * 86_400.0
    DEAD_LETTER_RETENTION: float | None = 90 * 86_400.0
    #: Put every insert off to the end of the caller's transaction.
    ENQUEUE_ON_COMMIT: bool = False
    #: Dotted paths, outermost first; they wrap every attempt.
    MIDDLEWARE: tuple[str, ...] = (
        "django_jobs.middleware.close_connections",
        "django_jobs.middleware.locale",
    )
    #: Dotted paths, outermost first; they wrap every enqueue.
    ENQUEUE_MIDDLEWARE: tuple[str, ...] = ("django_jobs.middleware.remember_locale",)
    #: Longest arguments, metadata, progress; and longest results, as JSON.
    PAYLOAD_MAX_BYTES: int = 256 * 1024
    PAYLOAD_MAX_DEPTH: int = 100
    RESULT_MAX_BYTES: int = 1024 * 1024
    #: Longest traceback and captured log that are kept.
    ERROR_MAX_BYTES: int = 64 * 1024
    LOG_MAX_BYTES: int = 32 * 1024
    #: A worker's sign of life, and how long after its last one it counts as dead.
    HEARTBEAT: float = 5.0
    LEASE: float = 30.0
    #: PostgreSQL: a lock tells sooner that a worker is dead. In return, a worker that
    #: cannot reach the database stops what it runs before two heartbeats are missed.
    FAST_RESCUE: bool = False
    #: How often an idle worker looks for tasks when notifications reach it.
    POLL: float = 1.0
    #: Shortest and longest pause of a worker that no notification reaches.
    POLL_FASTEST: float = 0.02
    POLL_SLOWEST: float = 0.1
    #: False sends and awaits no notifications (PostgreSQL).
    NOTIFY: bool = True
    #: Alias of a direct connection for LISTEN when ``DATABASE`` goes through a pooler.
    LISTEN_DATABASE: str | None = None
    #: How long a graceful stop waits for running tasks.
    SHUTDOWN_TIMEOUT: float = 25.0
    #: How long an interrupted task may tidy up before its process is killed.
    INTERRUPT_GRACE: float = 5.0
    #: After this time a task that no worker knows becomes a dead letter.
    UNKNOWN_TASK_TIMEOUT: float = 86_400.0


@cache
def conf() -> Conf:
    """Return the checked settings; ImproperlyConfigured names what is wrong."""
    problems = list(find_problems(given := getattr(settings, "DJANGO_JOBS", {})))
    if problems:
        raise ImproperlyConfigured("\n".join(problems))
    return Conf(**{key: _as_declared(value) for key, value in given.items()})


def readable_conf() -> Conf:
    """Return the settings with the defaults for those that are wrong."""
    given = getattr(settings, "DJANGO_JOBS", {})
    if not isinstance(given, dict):
        return Conf()
    right = {key: given[key] for key in given.keys() - wrong_keys(given)}
    return Conf(**{key: _as_declared(value) for key, value in right.items()})


def wrong_keys(given: Any) -> set[Any]:
    """Return the keys that ``find_problems`` speaks of."""
    if not isinstance(given, dict):
        return set()
    return {key for key, value in given.items() if _problem(str(key), value)}


def find_problems(given: Any) -> list[str]:
    """Return a sentence for each unknown key and each value of a wrong type."""
    if not isinstance(given, dict):
        return [f"DJANGO_JOBS must be a dict, not {type(given).__name__}."]
    return [
        problem
        for key, value in given.items()
        if (problem := _problem(str(key), value)) is not None
    ]


def readable_backends() -> dict[str, dict[str, Any]]:
    """Return those backends of ``TASKS`` that ``find_backend_problems`` leaves."""
    given = getattr(settings, "TASKS", {})
    if not isinstance(given, dict):
        return {}
    return {
        alias: params
        for alias, params in given.items()
        if _backend_problem(alias, params) is None
    }


def find_backend_problems() -> list[str]:
    """Return a sentence for each backend of ``TASKS`` that cannot be read at all."""
    given = getattr(settings, "TASKS", {})
    if not isinstance(given, dict):
        return [f"TASKS must be a dict, not {type(given).__name__}."]
    problems = (_backend_problem(alias, params) for alias, params in given.items())
    return [problem for problem in problems if problem is not None]


def _backend_problem(alias: Any, params: Any) -> str | None:
    where = f"TASKS[{alias!r}]"
    if not isinstance(params, dict):
        return f"{where} must be a dict, not {type(params).__name__}."
    if not isinstance(backend := params.get("BACKEND"), str):
        return f"{where} has no 'BACKEND' that is a dotted path."
    is_ours = backend.startswith(OURS)
    if is_ours and not isinstance(options := params.get("OPTIONS", {}), dict):
        return f"{where}['OPTIONS'] must be a dict, not {type(options).__name__}."
    return None


def _problem(key: str, value: Any) -> str | None:
    kinds = _kinds()
    if key not in kinds:
        near = difflib.get_close_matches(key.upper(), kinds, 1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        return f"DJANGO_JOBS has no key {key!r}.{hint}"
    if not kinds[key].accepts(value):
        return f"DJANGO_JOBS[{key!r}] must be {kinds[key].words}, not {value!r}."
    return None


@dataclass(frozen=True, slots=True)
class _Kind:
    words: str
    types: tuple[type, ...]
    may_be_none: bool

    def accepts(self, value: Any) -> bool:
        if value is None:
            return self.may_be_none
        if isinstance(value, bool):
            return bool in self.types
        if not isinstance(value, self.types):
            return False
        if float in self.types:
            return _is_duration(value)
        if isinstance(value, int):
            return value >= 0
        if isinstance(value, (list, tuple)):
            return all(isinstance(item, str) for item in value)
        return True


def _is_duration(value: Any) -> bool:
    """Tell whether the retries, and the clocks of the databases, can count with it."""
    try:
        seconds(value)
    except ValueError:
        return False
    return True


_KINDS = {
    "str": ("a string", (str,)),
    "int": ("a whole number from 0 on", (int,)),
    "float": (
        "a number of seconds from 0 to under 10,000 days, or a timedelta",
        (int, float, timedelta),
    ),
    "bool": ("True or False", (bool,)),
    "tuple[str, ...]": ("a list of strings", (list, tuple)),
}


@cache
def _kinds() -> dict[str, _Kind]:
    kinds = {}
    for field in fields(Conf):
        declared = str(field.type)
        words, types = _KINDS[declared.removesuffix(" | None")]
        may_be_none = declared.endswith(" | None")
        suffix = ", or None" if may_be_none else ""
        kinds[field.name] = _Kind(words + suffix, types, may_be_none)
    return kinds


def _as_declared(value: Any) -> Any:
    if isinstance(value, timedelta):
        return value.total_seconds()
    return tuple(value) if isinstance(value, list) else value


def _forget(*, setting: str, **kwargs: Any) -> None:
    if setting == "DJANGO_JOBS":
        conf.cache_clear()


setting_changed.connect(_forget, dispatch_uid="django_jobs.conf")
