"""Enqueue one task by name, tell its id: ``python -m fleet.enqueue NAME ARGUMENTS``.

The arguments are an object of JSON.
"""

from __future__ import annotations

import json
import sys

import django

django.setup()

from fleet import tasks  # noqa: E402

if __name__ == "__main__":
    name, arguments = sys.argv[1:]
    result = getattr(tasks, name).enqueue(**json.loads(arguments))
    sys.stdout.write(str(result.id))
