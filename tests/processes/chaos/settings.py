"""Settings of every process of a run: the environment says how it reaches the database.

``CHAOS_DATABASE`` is the value of the default alias, as JSON.
"""

import json
import os

from tests.settings import *  # noqa: F403

DATABASES = {"default": json.loads(os.environ["CHAOS_DATABASE"])}
INSTALLED_APPS = ["django_jobs", "tests.processes.chaos"]
TASKS: dict[str, object] = {}
ROOT_URLCONF = ""
