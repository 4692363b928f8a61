"""A unique enqueue inside ``atomic()``: what the caller's transaction lives through."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from tests.benchmarks.inside.given import GIVEN


class TakenBack(Exception):
    """Ends a transaction, so that what was done in it is undone."""


def in_a_transaction(peer: ModuleType, key: str) -> dict[str, Any]:
    """Enqueue the same key twice in one transaction, and go on working in it."""
    from django.db import transaction

    accepted = []
    try:
        with transaction.atomic():
            accepted = [peer.enqueue_unique(key) for _ in range(2)]
            _use_the_database()
    except Exception as error:
        return {"accepted": accepted, "error": f"{type(error).__name__}: {error}"}
    return {"accepted": accepted, "error": ""}


def rolled_back(peer: ModuleType, key: str) -> None:
    """Enqueue in a transaction that is taken back."""
    from django.db import transaction

    try:
        with transaction.atomic():
            peer.enqueue_unique(key)
            raise TakenBack
    except TakenBack:
        pass


def _use_the_database() -> None:
    from django.contrib.contenttypes.models import ContentType

    assert GIVEN["databases"]
    ContentType.objects.count()
