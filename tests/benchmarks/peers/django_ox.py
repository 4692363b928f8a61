"""django-ox, with its app oxpull."""

from tests.benchmarks.peers.base import LEASE, Peer, django

DJANGO_OX = Peer(
    name="django-ox",
    distribution="django-ox",
    requirements=("django-ox", "psycopg[binary]"),
    companions=("Django", "psycopg"),
    module="django_ox",
    has_sqlite=True,
    settings={
        "INSTALLED_APPS": ["django_ox", "oxpull"],
        "TASKS": {
            "default": {
                "BACKEND": "oxpull.backend.OxpullBackend",
                "OPTIONS": {
                    "LOCK_TIMEOUT": LEASE,
                    "SCHEDULE_SOURCE": "django_ox.stored.DatabaseScheduleSource",
                },
            }
        },
    },
    commands=lambda processes: [django("ox_worker", "--processes", str(processes))],
    configuration=(
        f"`LOCK_TIMEOUT` {LEASE} s (300 s by default), `MAX_ATTEMPTS` 3 (the default)",
        "`ox_worker --processes 2`, schedules in the database, "
        "unique tasks of `oxpull`",
    ),
)
