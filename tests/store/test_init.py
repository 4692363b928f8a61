"""Which store an alias has."""

from __future__ import annotations

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import connection, connections
from django.test import override_settings

from django_jobs.store import DIALECTS, get_store


class Elsewhere:
    """A router that writes to the other database."""

    def db_for_write(self, model: object, **hints: object) -> str:
        return "other"


def test_the_vendor_decides_on_the_dialect() -> None:
    store = get_store("default")
    assert type(store).__name__ == DIALECTS[connection.vendor][1]
    assert get_store("default") is store
    assert get_store("other") is not store


def test_the_settings_name_the_database_of_the_queue() -> None:
    assert get_store().alias == "default"
    with override_settings(DJANGO_JOBS={"DATABASE": "other"}):
        assert get_store().alias == "other"


def test_without_a_setting_the_router_names_it() -> None:
    with override_settings(DATABASE_ROUTERS=["tests.store.test_init.Elsewhere"]):
        assert get_store().alias == "other"


def test_an_unknown_vendor_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Oracle:
        vendor = "oracle"

    monkeypatch.setattr(type(connections), "__getitem__", lambda *args: Oracle())
    with pytest.raises(ImproperlyConfigured, match=r"oracle.*mysql, postgresql"):
        get_store("an alias of its own")
