"""What a person may see of the arguments of a task: sensitive ones are masked."""

from __future__ import annotations

import json

from django_jobs.definitions import find_definition
from django_jobs.summaries import MASK

#: JSON text in the place of what is masked.
MASKED = json.dumps(MASK)


def masked_arguments(name: str, args: str, kwargs: str) -> tuple[str, str]:
    """Return the arguments of a task as JSON text, sensitive ones masked.

    Which ones are is asked of the definition as it is now.
    """
    definition = find_definition(name)
    sensitive = False if definition is None else definition.sensitive
    if definition is None or sensitive is False:
        return args, kwargs
    if sensitive is True:
        return MASKED, MASKED
    try:
        values, named = json.loads(args), json.loads(kwargs)
        places = definition.parameters.places(sensitive, values, named)
        shown = [MASK if key in places else each for key, each in enumerate(values)]
        shown_named = {key: MASK if key in places else named[key] for key in named}
    except (ValueError, TypeError, AttributeError, RecursionError):
        return MASKED, MASKED  # unreadable: then nobody knows what is in it
    return json.dumps(shown), json.dumps(shown_named)


def masked_value(name: str, value: str | None) -> str | None:
    """Return the return value of a task as JSON text, masked if all of it is."""
    definition = find_definition(name)
    is_masked = definition is not None and definition.sensitive is True
    return MASKED if value is not None and is_masked else value
