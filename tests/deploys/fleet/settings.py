"""Settings of every release: the database of the test, and the package of its tree."""

import os
from pathlib import Path

import django_jobs
from tests import settings

TREE = Path(os.environ["FLEET_TREE"])
if not Path(django_jobs.__file__).is_relative_to(TREE):
    raise RuntimeError(f"{django_jobs.__file__} is not that of {TREE}")

DATABASES = {"default": settings.DATABASES["default"]}
DEFAULT_AUTO_FIELD = settings.DEFAULT_AUTO_FIELD
INSTALLED_APPS = ["django_jobs", "fleet"]
SECRET_KEY = settings.SECRET_KEY
USE_TZ = True
TIME_ZONE = "UTC"
