"""Settings of every process of a run: the environment says how it reaches the database.

``CHAOS_DATABASE`` is the value of the default alias, as JSON.
"""

import json
import os

from tests.settings import *  # noqa: F403

# Until a task that no worker knows is a dead letter; some seconds, as the run is short.
DJANGO_JOBS["UNKNOWN_TASK_TIMEOUT"] = 3.0  # noqa: F405
DATABASES = {"default": json.loads(os.environ["CHAOS_DATABASE"])}
INSTALLED_APPS = ["django_jobs", "tests.processes.chaos"]
TASKS: dict[str, object] = {}
ROOT_URLCONF = ""
