"""The settings of the tests, with an app that cannot wait."""

from tests.settings import *  # noqa: F403

INSTALLED_APPS = [*INSTALLED_APPS, "tests.processes.early"]  # noqa: F405
