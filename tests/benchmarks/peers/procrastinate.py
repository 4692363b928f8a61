"""procrastinate in Django, with the periodic task of its guide."""

from tests.benchmarks.peers.base import INNER_GRACE, LEASE, Peer, django

PROCRASTINATE = Peer(
    name="procrastinate",
    distribution="procrastinate",
    requirements=("procrastinate[django]", "psycopg[binary]"),
    companions=("Django", "psycopg"),
    module="procrastinate",
    settings={
        "INSTALLED_APPS": ["procrastinate.contrib.django"],
        "PROCRASTINATE_WORKER_DEFAULTS": {
            "update_heartbeat_interval": 5,
            "stalled_worker_timeout": LEASE,
            "shutdown_graceful_timeout": INNER_GRACE,
        },
    },
    commands=lambda processes: [django("procrastinate", "worker")] * processes,
    schedules_in_code=True,
    missing={"sqlite": "it works on PostgreSQL only; its migrations fail on SQLite"},
    configuration=(
        "two workers, each of them one process with one task at a time (the default)",
        "the periodic task `retry_stalled_jobs` of its guide, every 5 s "
        "(every 10 minutes there; none by default)",
        f"`stalled_worker_timeout` and `seconds_since_heartbeat` {LEASE} s (30 s by "
        "default), `update_heartbeat_interval` 5 s (10 s), "
        f"`shutdown_graceful_timeout` {INNER_GRACE} s (none)",
    ),
)
