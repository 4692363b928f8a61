"""django-tasks-db: a worker is one process."""

from tests.benchmarks.peers.base import Peer, django

DJANGO_TASKS_DB = Peer(
    name="django-tasks-db",
    distribution="django-tasks-db",
    # Before Django 6 it needs the extra, and tasks are declared by another package.
    requirements=("django-tasks-db", "Django>=6", "psycopg[binary]"),
    companions=("Django", "psycopg"),
    module="django_tasks_db",
    has_sqlite=True,
    settings={
        "INSTALLED_APPS": ["django_tasks_db"],
        "TASKS": {"default": {"BACKEND": "django_tasks_db.DatabaseBackend"}},
    },
    commands=lambda processes: [django("db_worker")] * processes,
    configuration=(
        "two `db_worker`, each of them one process; it has no settings for recovery",
    ),
    missing={
        "schedules": "its one model is that of results, its worker has no scheduler",
        "unique": "no option of the backend makes a task unique",
    },
)
