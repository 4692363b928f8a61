"""Settings of the test project, read from the environment.

``DATABASE_URL`` names the database; without it, an SQLite file beside manage.py.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import environ

env = environ.Env(
    ALLOWED_HOSTS=(list[str], ["localhost", "127.0.0.1"]),
    DEBUG=(bool, True),
    SECRET_KEY=(str, "not secret: set SECRET_KEY where others can reach the site"),
)

BASE_DIR = Path(__file__).resolve().parent.parent
DEBUG = env.bool("DEBUG")
SECRET_KEY = env.str("SECRET_KEY")
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS")


def database() -> dict[str, Any]:
    config: dict[str, Any] = env.db_url(
        "DATABASE_URL", f"sqlite:///{BASE_DIR / 'db.sqlite3'}"
    )
    if config["ENGINE"] == "django.db.backends.sqlite3":
        # Many processes share the file: readers never wait (WAL), and a writer takes
        # its lock at the start of a transaction, where waiting for it is possible.
        config["OPTIONS"] = {
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL",
            "timeout": 20,
            "transaction_mode": "IMMEDIATE",
            **config.get("OPTIONS", {}),
        }
    elif config["ENGINE"] == "django.db.backends.mysql" and not find_spec("MySQLdb"):
        import pymysql

        # Django asks for a recent mysqlclient, which PyMySQL only pretends to be.
        pymysql.version_info = (2, 2, 7, "final", 0)
        pymysql.install_as_MySQLdb()
    return config


DATABASES = {"default": database()}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "django_jobs",
    "library",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
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
WSGI_APPLICATION = "testproject.wsgi.application"
STATIC_URL = "static/"
STATIC_ROOT = BASE_DIR / "static"
USE_TZ = True
TIME_ZONE = "UTC"
