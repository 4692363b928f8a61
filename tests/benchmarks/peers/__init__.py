"""The peers: how each is installed, configured and started, and ourselves."""

from __future__ import annotations

from tests.benchmarks.peers.base import Peer
from tests.benchmarks.peers.celery import CELERY
from tests.benchmarks.peers.django_jobs import DJANGO_JOBS
from tests.benchmarks.peers.django_ox import DJANGO_OX
from tests.benchmarks.peers.django_q2 import DJANGO_Q2
from tests.benchmarks.peers.django_tasks_db import DJANGO_TASKS_DB
from tests.benchmarks.peers.dramatiq import DRAMATIQ
from tests.benchmarks.peers.procrastinate import PROCRASTINATE
from tests.benchmarks.peers.rq import RQ

PEERS: dict[str, Peer] = {
    peer.name: peer
    for peer in (
        DJANGO_JOBS,
        DJANGO_Q2,
        DJANGO_TASKS_DB,
        DJANGO_OX,
        PROCRASTINATE,
        CELERY,
        RQ,
        DRAMATIQ,
    )
}
