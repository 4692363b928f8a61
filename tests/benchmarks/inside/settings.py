"""Django's settings for any peer: what differs is given from outside."""

from tests.benchmarks.inside.given import GIVEN

SECRET_KEY = "for measurements only"
USE_TZ = True
TIME_ZONE = "UTC"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DATABASES = GIVEN["databases"]
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    *GIVEN["settings"].pop("INSTALLED_APPS", []),
    "tests.benchmarks.inside",
]
globals().update(GIVEN["settings"])
