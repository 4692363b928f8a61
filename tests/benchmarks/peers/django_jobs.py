"""Ourselves."""

from tests.benchmarks.peers.base import INNER_GRACE, LEASE, Peer, django

DJANGO_JOBS = Peer(
    name="django-jobworker",
    distribution="django-jobworker",
    requirements=("-e", "{root}[postgres]"),
    companions=("Django", "psycopg"),
    module="django_jobs",
    has_sqlite=True,
    settings={"INSTALLED_APPS": ["django_jobs"], "DJANGO_JOBS": {"LEASE": LEASE}},
    commands=lambda processes: [
        django(
            "jobworker",
            *("--processes", str(processes)),
            *("--shutdown-timeout", str(INNER_GRACE)),
        )
    ],
    configuration=(
        f"`LEASE` {LEASE} s (30 s by default)",
        f"`jobworker --processes 2 --shutdown-timeout {INNER_GRACE}` (25 s by default)",
    ),
    missing={
        "schedules": "no schedules yet",
        "unique": "no unique tasks yet",
    },
)
