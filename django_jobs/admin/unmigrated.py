"""Pages whose tables are missing or old say what to run, instead of failing."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.db import DatabaseError, connections
from django.http import HttpRequest, HttpResponse

from django_jobs.store import get_store
from django_jobs.store.errors import is_not_migrated
from django_jobs.store.tables import how_to_migrate, lacking, migrate_first

View = Callable[..., Any]


def explained(view: View) -> View:
    """Answer in plain words when the queue's database is not migrated.

    Without a template: those of the admin ask the database too.
    """

    @wraps(view)
    def wrapper(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        try:
            return view(request, *args, **kwargs)
        except DatabaseError as error:
            words = _what_to_run(error)
            if words is None:
                raise
            plain = "text/plain; charset=utf-8"
            return HttpResponse(f"{words}.\n", content_type=plain, status=503)

    return wrapper


def _what_to_run(error: DatabaseError) -> str | None:
    """Return what a person should do about an error, None when it is about another."""
    if not is_not_migrated(error):
        return None
    alias = get_store().alias
    try:
        missing = lacking(connections[alias])
    except DatabaseError:  # in a transaction that has failed nothing can be asked
        return f"The tables of django_jobs may be old: {how_to_migrate(alias)}"
    if not missing:
        return None
    words = migrate_first(alias, missing)
    return f"{words[0].upper()}{words[1:]}"
