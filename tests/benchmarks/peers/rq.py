"""RQ, each worker under the process supervisor, as its guide says."""

from tests.benchmarks.peers.base import Peer

WORKER = (
    *("rq", "worker", "--url", "{redis}", "--with-scheduler"),
    *("--maintenance-interval", "5", "--job-monitoring-interval", "5"),
    # An idle worker looks after the others once per time to live less 15 seconds.
    *("--worker-ttl", "20"),
)

RQ = Peer(
    name="RQ",
    distribution="rq",
    # Django is for the transaction of the caller, the workers do not load it.
    requirements=("rq", "django", "psycopg[binary]"),
    companions=("redis",),
    module="rq",
    on_redis=True,
    commands=lambda processes: [[*WORKER, "default"]] * processes,
    scheduler=("rq", "cron", "--url", "{redis}", "tests.benchmarks.inside.rq_cron"),
    schedules_in_code=True,
    configuration=(
        "two `rq worker --with-scheduler`, each a parent that forks a child per task",
        "`--job-monitoring-interval 5` (30 s by default; a silent task counts as "
        "abandoned 60 s after that), `--maintenance-interval 5` (600 s), "
        "`--worker-ttl 20` (420 s): so an idle one looks after the others every 5 s",
        "enqueued with `Retry(max=3)`, since what was abandoned is tried again only so",
    ),
    missing={"sqlite": "the broker is Redis"},
)
