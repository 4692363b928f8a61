"""The tasks of Django's decorator that this process knows, by their dotted path.

Tasks for our backend make themselves known when they are declared. One that is
declared for another alias, and comes to us by ``using(backend=...)``, is found in its
module, if that is loaded. A stored name never makes Python import anything.
"""

from __future__ import annotations

import sys
from typing import Any

from django_jobs.backend.api import AnyTask, Task

#: The declared tasks; not copies by ``using()``, where the declaration can be found.
_declared: dict[str, AnyTask] = {}


def remember(task: AnyTask) -> None:
    """Make a task known; a declaration that came before gives way."""
    _declared[task.module_path] = task


def find_task(name: str) -> AnyTask | None:
    """Return the declared task of this dotted path, None when there is none here."""
    return _declared.get(name) or loaded_task(name)


def loaded_task(name: str) -> AnyTask | None:
    """Return the task at this path of the modules that are loaded."""
    parts = name.split(".")
    for length in range(len(parts) - 1, 0, -1):
        module = sys.modules.get(".".join(parts[:length]))
        if module is not None:
            return _task_at(module, parts[length:], name)
    return None


def _task_at(place: Any, steps: list[str], name: str) -> AnyTask | None:
    for step in steps:
        # Not getattr: a module's or a class's own __getattr__ may import.
        place = getattr(place, "__dict__", {}).get(step)
    if isinstance(place, Task) and place.module_path == name:
        return place
    return None
