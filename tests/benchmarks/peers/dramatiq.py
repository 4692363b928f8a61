"""Dramatiq on Redis."""

from tests.benchmarks.peers.base import INNER_GRACE, LEASE, Peer

DRAMATIQ = Peer(
    name="Dramatiq",
    distribution="dramatiq",
    requirements=("dramatiq[redis]",),
    companions=("redis",),
    module="dramatiq",
    on_redis=True,
    uses_django=False,
    # Without it a process takes a second task while the first one runs.
    environment={"dramatiq_queue_prefetch": "1"},
    commands=lambda processes: [
        [
            *("dramatiq", "tests.benchmarks.inside.dramatiq"),
            *("--processes", str(processes), "--threads", "1"),
            *("--worker-shutdown-timeout", str(INNER_GRACE * 1000)),
        ]
    ],
    configuration=(
        f"`RedisBroker` with `heartbeat_timeout` {LEASE} s (60 s by default) and "
        "`maintenance_chance` 100,000 (1,000 by default: the dead are looked for "
        "at one command in a thousand)",
        f"`--processes 2 --threads 1 --worker-shutdown-timeout {INNER_GRACE * 1000}` "
        "(8 threads and 10 minutes by default)",
        "`dramatiq_queue_prefetch` 1 (twice the threads by default)",
        "default middleware: what raises is retried up to 20 times",
    ),
    missing={
        "schedules": "its guide refers to other packages",
        "unique": "its guide has no unique messages",
        "sqlite": "the broker is Redis",
    },
)
