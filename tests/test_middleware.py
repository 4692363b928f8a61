"""The onion: its order, its two kinds, and the layers that are built in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from asgiref.sync import async_to_sync, iscoroutinefunction, sync_to_async
from django.core.exceptions import ImproperlyConfigured, MiddlewareNotUsed
from django.db import Error, connections, transaction
from django.test import override_settings
from django.utils import timezone, translation
from django.utils.decorators import (
    async_only_middleware,
    sync_and_async_middleware,
)

from django_jobs import middleware
from django_jobs.context import TaskContext
from django_jobs.middleware import attempt_handler, enqueue_handler
from django_jobs.records import ClaimedTask
from tests.sampleapp import tasks
from tests.test_context import claimed

BUILT_IN = "django_jobs.middleware."
STEPS: list[str] = []


@pytest.fixture(autouse=True)
def clean_slate() -> Iterator[None]:
    STEPS.clear()
    yield
    translation.deactivate()
    timezone.deactivate()


def run(context: TaskContext) -> str:
    STEPS.append("run")
    return f"value of {context.attempt}"


async def arun(context: TaskContext) -> str:
    STEPS.append("arun")
    await asyncio.sleep(0)
    return f"value of {context.attempt}"


def context_of(task: ClaimedTask | None = None) -> TaskContext:
    return TaskContext(task or claimed(), "")


def call(function: Callable[..., Any] = run, headers: str = "{}") -> Any:
    """Run an attempt through the configured onion, sync or async as the function is."""
    is_async = iscoroutinefunction(function)
    handler = attempt_handler(function, is_async=is_async)
    context = context_of(claimed(headers=headers))
    return async_to_sync(handler)(context) if is_async else handler(context)


def layers(*names: str) -> Any:
    paths = [name if "." in name else f"{__name__}.{name}" for name in names]
    return override_settings(DJANGO_JOBS={"MIDDLEWARE": paths})


def note(name: str) -> Callable[..., Any]:
    """Make a sync layer that notes when it is passed."""

    def factory(get_response: Callable[[TaskContext], Any]) -> Any:
        def layer(context: TaskContext) -> Any:
            STEPS.append(f"{name} in")
            try:
                return get_response(context)
            finally:
                STEPS.append(f"{name} out")

        return layer

    return factory


outer, inner = note("outer"), note("inner")


@sync_and_async_middleware
def both(get_response: Callable[[TaskContext], Any]) -> Any:
    if not iscoroutinefunction(get_response):
        return note("both")(get_response)

    async def layer(context: TaskContext) -> Any:
        STEPS.append("abth in")
        return await get_response(context)

    return layer


@async_only_middleware
def only_async(get_response: Callable[[TaskContext], Any]) -> Any:
    async def layer(context: TaskContext) -> Any:
        STEPS.append("async in")
        return await get_response(context)

    return layer


class AsClass:
    def __init__(self, get_response: Callable[[TaskContext], Any]) -> None:
        self.get_response = get_response

    def __call__(self, context: TaskContext) -> Any:
        return f"[{self.get_response(context)}]"


def unused(get_response: Callable[[TaskContext], Any]) -> Any:
    raise MiddlewareNotUsed


def empty(get_response: Callable[[TaskContext], Any]) -> Any:
    return None


def neither(get_response: Callable[[TaskContext], Any]) -> Any:
    return get_response


neither.sync_capable = False  # type: ignore[attr-defined]


# -- the onion ---------------------------------------------------------------------


def test_the_first_layer_is_the_outermost() -> None:
    with layers("outer", "inner"):
        assert call() == "value of 1"
    assert STEPS == ["outer in", "inner in", "run", "inner out", "outer out"]


def test_without_layers_there_is_the_function_alone() -> None:
    with layers():
        assert attempt_handler(run, is_async=False) is run


def test_a_layer_may_be_a_class_and_change_the_value() -> None:
    with layers("AsClass"):
        assert call() == call(arun) == "[value of 1]"


def test_a_sync_layer_works_around_a_coroutine() -> None:
    with layers("outer", "both", "inner"):
        assert call(arun) == "value of 1"
    assert [
        *["outer in", "both in", "inner in"],
        *["arun", "inner out", "both out", "outer out"],
    ] == STEPS


def test_a_layer_of_both_kinds_stays_async_around_a_coroutine() -> None:
    with layers("both"):
        assert call(arun) == "value of 1"
    assert STEPS == ["abth in", "arun"]


def test_an_async_layer_works_around_a_plain_function() -> None:
    with layers("outer", "only_async"):
        assert call() == "value of 1"
    assert STEPS == ["outer in", "async in", "run", "outer out"]


def test_a_layer_may_withdraw() -> None:
    with layers("outer", "unused"):
        assert call() == "value of 1"
    assert STEPS == ["outer in", "run", "outer out"]


@pytest.mark.parametrize(
    ("name", "words"),
    [("empty", "returned None"), ("neither", "neither sync nor async")],
)
def test_a_layer_that_cannot_work_is_named(name: str, words: str) -> None:
    with layers(name), pytest.raises(ImproperlyConfigured, match=f"{name}.*{words}"):
        call()


def test_errors_pass_through() -> None:
    def fail(context: TaskContext) -> None:
        raise LookupError("no")

    with layers("outer"), pytest.raises(LookupError):
        call(fail)
    assert STEPS == ["outer in", "outer out"]


def test_the_onion_is_built_once() -> None:
    with layers("outer"):
        handler = attempt_handler(run, is_async=False)
        assert attempt_handler(run, is_async=False) is handler
    with layers():
        assert attempt_handler(run, is_async=False) is not handler


# -- close_connections -------------------------------------------------------------


def query() -> object:
    """Use the connection; return what it talks to the database with."""
    with connections["default"].cursor() as cursor:
        cursor.execute("SELECT 1")
    return connections["default"].connection


def use_connection(context: TaskContext) -> object:
    return query()


async def ause_connection(context: TaskContext) -> object:
    return await sync_to_async(query)()


each_kind = pytest.mark.parametrize("function", [use_connection, ause_connection])
closing = layers(f"{BUILT_IN}close_connections")


@pytest.fixture
def connection(transactional_db: None) -> Any:
    query()
    return connections["default"]


@each_kind
@closing
def test_a_good_connection_is_kept_for_the_next_attempt(
    function: Callable[..., Any], connection: Any
) -> None:
    before = connection.connection
    assert connection.settings_dict["CONN_MAX_AGE"] == 0
    assert call(function) is before
    assert call(function) is before


@each_kind
@closing
def test_a_connection_that_died_while_nobody_looked_is_replaced(
    function: Callable[..., Any], connection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = connection.connection
    call(function)
    monkeypatch.setattr(connection, "is_usable", lambda: False)
    assert call(function) is not before


@each_kind
@closing
def test_a_connection_that_is_too_old_is_replaced(
    function: Callable[..., Any], connection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = connection.connection
    monkeypatch.setitem(connection.settings_dict, "CONN_MAX_AGE", 5)
    connection.close_at = 0.0
    assert call(function) is not before


@closing
def test_a_connection_that_broke_in_a_task_is_closed_after_it(
    connection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_connection(context: TaskContext) -> None:
        connection.errors_occurred = True
        monkeypatch.setattr(connection, "is_usable", lambda: False)
        raise LookupError

    with pytest.raises(LookupError):
        call(break_connection)
    assert connection.connection is None


@each_kind
@closing
def test_a_connection_that_the_driver_has_closed_is_replaced(
    function: Callable[..., Any], connection: Any
) -> None:
    def close_and_use(context: TaskContext) -> None:
        connection.connection.close()
        query()

    with suppress(Error):  # the health check of a server's connection may mend it
        call(close_and_use)
    assert call(function) is not None


@pytest.mark.parametrize(
    ("function", "opened"), [(run, False), (arun, False), (arun, True)]
)
@closing
def test_a_process_without_connections_looks_for_none(
    function: Callable[..., Any], opened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []

    def look(**kwargs: Any) -> list[Any]:
        looks.append(1)
        return []

    monkeypatch.setattr(middleware, "_opened", {"default"} if opened else set())
    monkeypatch.setattr(middleware, "connections", SimpleNamespace(all=look))
    call(function)
    assert len(looks) == (2 if opened else 0)


@closing
def test_an_open_transaction_is_left_alone(connection: Any) -> None:
    with transaction.atomic():
        before = connection.connection
        connection.close_at = 0.0
        call(use_connection)
        assert connection.connection is before


# -- locale ------------------------------------------------------------------------


def look(context: TaskContext) -> tuple[str | None, str]:
    return translation.get_language(), timezone.get_current_timezone_name()


async def alook(context: TaskContext) -> tuple[str | None, str]:
    await asyncio.sleep(0)
    return look(context)


in_locale = layers(f"{BUILT_IN}locale")
AUSTRIAN = '{"language": "de-at", "timezone": "Europe/Vienna"}'


@pytest.mark.parametrize("function", [look, alook])
@in_locale
def test_the_task_runs_in_the_locale_of_the_enqueuer(
    function: Callable[..., Any],
) -> None:
    assert call(function, AUSTRIAN) == ("de-at", "Europe/Vienna")
    assert look(context_of()) == ("en-us", "UTC")


@pytest.mark.parametrize("function", [look, alook])
@in_locale
def test_without_headers_the_defaults_hold(function: Callable[..., Any]) -> None:
    assert call(function) == ("en-us", "UTC")


@in_locale
def test_what_was_active_before_is_active_again() -> None:
    with translation.override("fr"), timezone.override("Asia/Tokyo"):
        assert call(look, AUSTRIAN) == ("de-at", "Europe/Vienna")
        assert look(context_of()) == ("fr", "Asia/Tokyo")


@in_locale
def test_a_task_leaves_no_locale_behind() -> None:
    def change(context: TaskContext) -> None:
        translation.activate("fr")
        timezone.activate(ZoneInfo("Asia/Tokyo"))
        raise LookupError

    with pytest.raises(LookupError):
        call(change)
    assert look(context_of()) == ("en-us", "UTC")


@in_locale
def test_a_locale_that_was_switched_off_is_so_again() -> None:
    with translation.override(None):
        call(look, AUSTRIAN)
        assert translation.get_language() is None


@in_locale
def test_a_fixed_offset_is_kept() -> None:
    assert call(look, '{"timezone": -90}')[1] == "-0130"


@in_locale
def test_a_zone_that_is_unknown_here_fails_no_task(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert call(look, '{"timezone": "Mars/Olympus"}') == ("en-us", "UTC")
    assert "event=unknown_timezone" in caplog.text


# -- remember_locale ---------------------------------------------------------------


def headers_of_a_new_task() -> str:
    return enqueue_handler()(tasks.add.new_task((1,), {})).headers


def test_the_defaults_need_no_header() -> None:
    assert headers_of_a_new_task() == "{}"


def test_the_locale_of_the_enqueuer_is_remembered() -> None:
    with translation.override("de-at"), timezone.override("Europe/Vienna"):
        assert headers_of_a_new_task() == AUSTRIAN
    with timezone.override(timezone.get_fixed_timezone(-90)):
        assert headers_of_a_new_task() == '{"timezone": -90}'


def test_other_headers_are_kept() -> None:
    task = tasks.add.new_task((1,), {})._replace(headers='{"trace": "x"}')
    with translation.override("fr"):
        assert enqueue_handler()(task).headers == '{"trace": "x", "language": "fr"}'


def test_no_language_is_no_header() -> None:
    with translation.override(None):
        assert headers_of_a_new_task() == "{}"


@pytest.mark.django_db
@in_locale
def test_a_task_takes_its_locale_along() -> None:
    from tests.sampleapp.hands import Hands

    with translation.override("fr"), timezone.override("Asia/Tokyo"):
        tasks.add.enqueue(1)
    assert call(look, Hands().claim().headers) == ("fr", "Asia/Tokyo")
