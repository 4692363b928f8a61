"""Addresses and texts of the admin's pages, for its tests."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from django.test import Client
from django.urls import reverse


def list_page(model: Any, **query: Any) -> str:
    address = reverse(f"admin:django_jobs_{model._meta.model_name}_changelist")
    return f"{address}?{urlencode(query)}" if query else address


def page(row: Any) -> str:
    name = f"admin:django_jobs_{row._meta.model_name}_change"
    return reverse(name, args=[row.pk])


def body(client: Client, address: str) -> str:
    response = client.get(address)
    assert response.status_code == 200
    return response.content.decode()
