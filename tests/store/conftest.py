"""The store under test: that of the database that the run uses."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.apps import apps
from django.db import connections
from pytest_django import DjangoDbBlocker

from django_jobs.store import Store, get_store


@pytest.fixture
def _django_db_helper(
    django_db_setup: None, django_db_blocker: DjangoDbBlocker
) -> Iterator[None]:
    """Empty the tables by DELETE in place of pytest-django's TRUNCATE.

    There are many tests here, and some servers take a second for the latter.
    """
    with django_db_blocker.unblock():
        yield
        for connection in connections.all():
            for model in apps.get_app_config("django_jobs").get_models():
                model._base_manager.using(connection.alias).all().delete()
            connection.close()


@pytest.fixture
def store(_django_db_helper: None) -> Store:
    return get_store("default")
