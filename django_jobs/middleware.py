"""The onion around enqueue and around an attempt, in the shape of Django's middleware.

A middleware is a factory: it gets the next layer, ``get_response``, and returns a
callable of the same kind. Around an attempt that is ``TaskContext -> return value``;
around enqueue it is ``NewTask -> NewTask`` and always sync. Whether a task runs again
is never decided here.

As with Django, a factory handles sync unless it says otherwise
(``django.utils.decorators.sync_and_async_middleware``). One that knows only sync works
around ``async def`` tasks too, but lets one of them run at a time.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from datetime import timezone as FixedOffset
from functools import cache
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from asgiref.sync import async_to_sync, iscoroutinefunction, sync_to_async
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured, MiddlewareNotUsed
from django.core.signals import setting_changed
from django.db import connections
from django.db.backends.signals import connection_created
from django.utils import timezone, translation
from django.utils.decorators import sync_and_async_middleware
from django.utils.module_loading import import_string

from django_jobs import events
from django_jobs.conf import conf
from django_jobs.records import NewTask

if TYPE_CHECKING:  # a layer above: it is only passed through
    from django_jobs.context import TaskContext

logger = logging.getLogger("django_jobs")

#: Returns the task's value, or an awaitable of it.
AttemptHandler = Callable[["TaskContext"], Any]
EnqueueHandler = Callable[[NewTask], NewTask]


# -- building ----------------------------------------------------------------------


@cache
def attempt_handler(run: AttemptHandler, *, is_async: bool) -> AttemptHandler:
    """Return ``run`` inside ``MIDDLEWARE``; ``is_async`` says which kind both are.

    Give a function that lives as long as the process: the onion is built once for it.
    """
    handler, handler_is_async = run, is_async
    for path in reversed(conf().MIDDLEWARE):
        factory = import_string(path)
        layer_is_async = _layer_is_async(factory, path, handler_is_async)
        adapted = _adapt(handler, handler_is_async, layer_is_async)
        layer = _made(factory, adapted, path)
        if layer is not None:
            handler, handler_is_async = layer, layer_is_async
    return _adapt(handler, handler_is_async, is_async)


@cache
def enqueue_handler() -> EnqueueHandler:
    """Return the onion of ``ENQUEUE_MIDDLEWARE``; its core hands the task back."""
    handler: EnqueueHandler = _same
    for path in reversed(conf().ENQUEUE_MIDDLEWARE):
        handler = _made(import_string(path), handler, path) or handler
    return handler


def _same(task: NewTask) -> NewTask:
    return task


def _layer_is_async(factory: Any, path: str, next_is_async: bool) -> bool:
    can_sync = getattr(factory, "sync_capable", True)
    can_async = getattr(factory, "async_capable", False)
    if not can_sync and not can_async:
        raise ImproperlyConfigured(f"Middleware {path} is neither sync nor async.")
    return bool(can_async and (next_is_async or not can_sync))


def _adapt(handler: AttemptHandler, is_async: bool, wanted: bool) -> AttemptHandler:
    if is_async is wanted:
        return handler
    if wanted:
        return sync_to_async(handler, thread_sensitive=True)
    return async_to_sync(handler)


def _made(factory: Any, handler: Any, path: str) -> Any:
    try:
        layer = factory(handler)
    except MiddlewareNotUsed:
        return None
    if layer is None:
        raise ImproperlyConfigured(f"Middleware factory {path} returned None.")
    return layer


def _forget(*, setting: str, **kwargs: Any) -> None:
    if setting == "DJANGO_JOBS":
        attempt_handler.cache_clear()
        enqueue_handler.cache_clear()


setting_changed.connect(_forget, dispatch_uid="django_jobs.middleware")


# -- built in ----------------------------------------------------------------------


#: Aliases whose connections this process ever opened. Many tasks need none, and to
#: look for them costs a coroutine two trips to another thread.
_opened: set[str] = set()


def _note_connection(*, connection: Any, **kwargs: Any) -> None:
    _opened.add(connection.alias)


connection_created.connect(_note_connection, dispatch_uid="django_jobs.middleware")


def _close_unusable(*, is_over: bool = False) -> None:
    """Close connections that are broken or past their age; let the others be checked.

    Not Django's ``close_old_connections``: with the default CONN_MAX_AGE of 0, which
    is meant for requests, it would make every task connect anew. The check comes with
    the first query of an attempt: an idle worker's connection may have died unseen.

    One whose autocommit the attempt that is over has turned off is left to whoever
    looks for open transactions. It is closed before the next attempt.
    """
    if not _opened:
        return
    initialized: Sequence[Any] = connections.all(initialized_only=True)
    for connection in initialized:
        if connection.connection is None or connection.in_atomic_block:
            continue
        has_autocommit = connection.settings_dict["AUTOCOMMIT"]
        if is_over and connection.autocommit != has_autocommit:
            continue
        if connection.settings_dict["CONN_MAX_AGE"] == 0:
            connection.close_at = None
        if connection.errors_occurred and connection.vendor == "sqlite":
            connection.close()  # Django calls it usable although the driver closed it
        connection.close_if_unusable_or_obsolete()
        connection.health_check_enabled = True


async def _aclose_unusable(*, is_over: bool = False) -> None:
    if _opened:
        # In the thread where sync code of coroutines has its connections.
        close = sync_to_async(_close_unusable, thread_sensitive=True)
        await close(is_over=is_over)


@sync_and_async_middleware
def close_connections(get_response: AttemptHandler) -> AttemptHandler:
    """Close connections that are broken or too old, before and after an attempt."""

    def middleware(context: TaskContext) -> Any:
        _close_unusable()
        try:
            return get_response(context)
        finally:
            _close_unusable(is_over=True)

    async def amiddleware(context: TaskContext) -> Any:
        await _aclose_unusable()
        try:
            return await get_response(context)
        finally:
            await _aclose_unusable(is_over=True)

    return amiddleware if iscoroutinefunction(get_response) else middleware


@sync_and_async_middleware
def locale(get_response: AttemptHandler) -> AttemptHandler:
    """Run in the language and time zone of the enqueuer, and leave none behind."""

    def middleware(context: TaskContext) -> Any:
        before = _current_locale()
        _activate(context.headers)
        try:
            return get_response(context)
        finally:
            _restore(before)

    async def amiddleware(context: TaskContext) -> Any:
        before = _current_locale()
        _activate(context.headers)
        try:
            return await get_response(context)
        finally:
            _restore(before)

    return amiddleware if iscoroutinefunction(get_response) else middleware


def remember_locale(get_response: EnqueueHandler) -> EnqueueHandler:
    """Note language and time zone of the enqueuer where they are not the defaults."""

    def middleware(task: NewTask) -> NewTask:
        noted = _unusual_locale()
        if noted:
            headers = {**json.loads(task.headers), **noted}
            task = task._replace(headers=json.dumps(headers))
        return get_response(task)

    return middleware


_Locale = tuple[str | None, Any]


def _current_locale() -> _Locale:
    return translation.get_language(), timezone.get_current_timezone()


def _unusual_locale() -> dict[str, str | int]:
    language, zone = _current_locale()
    noted: dict[str, str | int] = {}
    if settings.USE_I18N and language and language != settings.LANGUAGE_CODE:
        noted["language"] = language
    if zone is not timezone.get_default_timezone():
        if isinstance(zone, ZoneInfo) and zone.key:
            noted["timezone"] = zone.key
        elif isinstance(zone, FixedOffset):
            noted["timezone"] = int(zone.utcoffset(None).total_seconds() // 60)
    return noted


def _activate(headers: dict[str, Any]) -> None:
    if "language" in headers:
        translation.activate(headers["language"])
    zone = headers.get("timezone")
    if isinstance(zone, int):
        timezone.activate(timezone.get_fixed_timezone(zone))
    elif zone is not None:
        try:
            timezone.activate(ZoneInfo(zone))
        except (ZoneInfoNotFoundError, ValueError):
            events.log(logger, logging.WARNING, "unknown_timezone", zone=zone)


def _restore(before: _Locale) -> None:
    language, zone = before
    if translation.get_language() != language:
        if language is None:
            translation.deactivate_all()
        elif language == settings.LANGUAGE_CODE:
            translation.deactivate()
        else:
            translation.activate(language)
    if timezone.get_current_timezone() is zone:
        return
    if zone is timezone.get_default_timezone():
        timezone.deactivate()
    else:
        timezone.activate(zone)
