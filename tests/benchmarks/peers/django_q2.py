"""django-q2, on its ORM broker."""

from tests.benchmarks.peers.base import LEASE, Peer, django

DJANGO_Q2 = Peer(
    name="django-q2",
    distribution="django-q2",
    requirements=("django-q2", "psycopg[binary]", "croniter"),
    companions=("Django", "psycopg"),
    module="django_q2",
    has_sqlite=True,
    settings={
        "INSTALLED_APPS": ["django_q"],
        "Q_CLUSTER": {
            "name": "benchmark",
            "orm": "default",
            "workers": "{processes}",
            # Its guide: timeout < retry, and both longer than the longest task.
            "timeout": LEASE - 3,
            "retry": LEASE,
            "ack_failures": False,
            "max_attempts": 3,
            "save_limit": 0,
        },
    },
    # The number of its processes is a setting.
    commands=lambda processes: [django("qcluster")],
    configuration=(
        "`orm` broker on PostgreSQL, `workers` 2, `max_attempts` 3, `save_limit` 0",
        f"`timeout` {LEASE - 3} s < `retry` {LEASE} s (none and 60 s by default), "
        "both longer than the longest task, as its guide asks",
        "`ack_failures` stays off, so that what fails is tried again; "
        "tasks that fail on purpose are enqueued with `ack_failure`",
    ),
    missing={"unique": "no option of `async_task` makes a task unique"},
)
