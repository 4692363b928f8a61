"""Settings of the test suite.

``DJANGO_JOBS_TEST_DATABASE`` chooses the server of both aliases, ``default`` and
``other``: sqlite (the default), postgresql, mariadb or mysql. Where a server is to
be found is said by ``DJANGO_JOBS_TEST_<SERVER>_URL``; ``DJANGO_JOBS_TEST_POOL`` is
the size of Django's own pool (PostgreSQL, psycopg 3; none by default). The names of
the databases belong to one run alone; worker processes of the run are told by
``DJANGO_JOBS_TEST_NAME_<ALIAS>`` (see ``worker_env`` in conftest.py).
"""

import os
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import django
import environ

env = environ.Env()

SERVER = env.str("DJANGO_JOBS_TEST_DATABASE", "sqlite")
URLS = {
    "sqlite": "sqlite://",
    "postgresql": "postgres://postgres@127.0.0.1:5432/postgres",
    "mariadb": "mysql://root@127.0.0.1:3306/",
    "mysql": "mysql://root@127.0.0.1:3306/",
}
if SERVER not in URLS:
    raise ValueError(f"DJANGO_JOBS_TEST_DATABASE is {SERVER!r}, not one of {[*URLS]}")

if SERVER in ("mariadb", "mysql") and find_spec("MySQLdb") is None:
    import pymysql

    # Django asks for a recent mysqlclient, which PyMySQL only pretends to be.
    pymysql.version_info = (2, 2, 7, "final", 0)
    pymysql.install_as_MySQLdb()


def database(alias: str) -> dict[str, Any]:
    """One database of this run; a plain connection and the tests use the same."""
    variable = f"DJANGO_JOBS_TEST_NAME_{alias.upper()}"
    name = env.str(variable, f"django_jobs_test_{os.getpid()}_{alias}")
    config: dict[str, Any] = env.db_url(
        f"DJANGO_JOBS_TEST_{SERVER.upper()}_URL", URLS[SERVER]
    )
    if SERVER == "sqlite":
        # A file, since worker processes must see it too.
        if variable not in os.environ:
            name = str(Path(tempfile.gettempdir()) / f"{name}.sqlite3")
        config["OPTIONS"] = {
            "timeout": 20,
            "transaction_mode": "IMMEDIATE",
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL",
        }
    elif SERVER == "postgresql":
        config["OPTIONS"] = {"connect_timeout": 5}
        if size := env.int("DJANGO_JOBS_TEST_POOL", 0):
            config["OPTIONS"]["pool"] = {"min_size": 1, "max_size": size}
    else:
        config["OPTIONS"] = {"connect_timeout": 5, "charset": "utf8mb4"}
        config["TEST"] = {"CHARSET": "utf8mb4"}
    config["NAME"] = name
    config.setdefault("TEST", {})["NAME"] = name
    return config


DATABASES = {alias: database(alias) for alias in ("default", "other")}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "django_jobs",
    "tests.sampleapp",
    "tests",
    "tests.processes",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]
ROOT_URLCONF = "testproject.urls"
STATIC_URL = "static/"
SECRET_KEY = "for the tests only"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
USE_TZ = True
TIME_ZONE = "UTC"

# Django's own task decorator: part of Django 6, on 5.2 a package of its own.
BACKPORT = django.VERSION < (6, 0) and find_spec("django_tasks") is not None
if BACKPORT:
    INSTALLED_APPS.append("django_tasks")
if BACKPORT or django.VERSION >= (6, 0):
    INSTALLED_APPS.append("tests.thirdparty")
    OURS = "django_jobs.backend.JobsBackend"
    FRAMEWORK = "django_tasks" if BACKPORT else "django.tasks"
    TASKS = {
        "default": {"BACKEND": OURS, "QUEUES": []},
        "other": {"BACKEND": OURS, "QUEUES": [], "OPTIONS": {"DATABASE": "other"}},
        "strict": {
            "BACKEND": OURS,
            "QUEUES": ["mail"],
            "OPTIONS": {"MODULES": ["tests.thirdparty.elsewhere"], "MAX_ATTEMPTS": 7},
        },
        "late": {
            "BACKEND": OURS,
            "QUEUES": [],
            "OPTIONS": {"ENQUEUE_ON_COMMIT": True},
        },
        "foreign": {"BACKEND": f"{FRAMEWORK}.backends.dummy.DummyBackend"},
    }

# What a test gives to a worker process of its own, as JOBS_LEASE=2.
DJANGO_JOBS = {
    key: env.float(f"JOBS_{key}")
    for key in ("LEASE", "HEARTBEAT", "INTERRUPT_GRACE", "POLL")
    if f"JOBS_{key}" in os.environ
}
if "JOBS_FAST_RESCUE" in os.environ:
    DJANGO_JOBS["FAST_RESCUE"] = env.bool("JOBS_FAST_RESCUE")
