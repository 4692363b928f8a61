"""Celery on Redis, with late acknowledgement."""

from tests.benchmarks.peers.base import INNER_GRACE, LEASE, Peer

APP = ("celery", "-A", "tests.benchmarks.inside.celery")
VISIBILITY = {"visibility_timeout": LEASE}

CELERY = Peer(
    name="Celery",
    distribution="celery",
    requirements=("celery[redis]", "django-celery-beat", "psycopg[binary]"),
    companions=("redis", "kombu", "Django", "django-celery-beat"),
    module="celery",
    on_redis=True,
    settings={
        "INSTALLED_APPS": ["django_celery_beat"],
        "CELERY_BROKER_URL": "{redis}",
        "CELERY_TASK_ACKS_LATE": True,
        "CELERY_TASK_REJECT_ON_WORKER_LOST": True,
        "CELERY_TASK_IGNORE_RESULT": True,
        "CELERY_WORKER_PREFETCH_MULTIPLIER": 1,
        "CELERY_WORKER_CANCEL_LONG_RUNNING_TASKS_ON_CONNECTION_LOSS": True,
        "CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT": INNER_GRACE,
        "CELERY_BROKER_CONNECTION_MAX_RETRIES": None,
        "CELERY_BROKER_TRANSPORT_OPTIONS": VISIBILITY,
        "CELERY_RESULT_BACKEND_TRANSPORT_OPTIONS": VISIBILITY,
        "CELERY_VISIBILITY_TIMEOUT": LEASE,
    },
    environment={"REMAP_SIGTERM": "SIGQUIT"},
    commands=lambda processes: [[*APP, "worker", "--concurrency", str(processes)]],
    scheduler=(
        *(*APP, "beat", "--schedule", "beat", "--pidfile="),
        *("--scheduler", "django_celery_beat.schedulers:DatabaseScheduler"),
    ),
    configuration=(
        "`task_acks_late`, `task_reject_on_worker_lost`, "
        "`worker_prefetch_multiplier` 1",
        f"`visibility_timeout` {LEASE} s in its three places (1 h by default)",
        f"soft shutdown: `worker_soft_shutdown_timeout` {INNER_GRACE} s and "
        "`REMAP_SIGTERM=SIGQUIT` (off by default)",
        "`worker_cancel_long_running_tasks_on_connection_loss` (off by default), "
        "`broker_connection_max_retries` none (100)",
        "pool prefork, `--concurrency 2`; no result is stored; schedules by "
        "django-celery-beat",
    ),
    missing={
        "unique": "its guide offers a lock for running tasks, none for enqueueing",
        "sqlite": "the broker is Redis",
    },
)
