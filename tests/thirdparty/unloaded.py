"""A module that nothing imports, and nothing may import because a row names it."""

from __future__ import annotations

raise AssertionError("a stored name was imported")
