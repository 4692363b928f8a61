"""Enqueue without end, as a web process does: ``python -m fleet.produce AUDIT ACKED``.

Every id is told in ACKED, after it was enqueued. It ends at the end of its input.
"""

from __future__ import annotations

import itertools
import select
import sys
from datetime import timedelta

import django

django.setup()

from django.db import transaction  # noqa: E402

from django_jobs import enqueue_many  # noqa: E402
from fleet import tasks  # noqa: E402

#: Seconds between two rounds.
PACE = 0.1


def main(audit: str, acked: str) -> None:
    with open(acked, "a", buffering=1) as told:
        for number in itertools.count():
            for result in one_round(audit, f"{tasks.RELEASE}-{number}"):
                told.write(f"{result.id}\n")
            if select.select([sys.stdin], [], [], PACE)[0]:
                return


def one_round(audit: str, key: str):
    yield tasks.plain.enqueue(audit, f"{key}-plain")
    with transaction.atomic():
        inside = tasks.atomic.enqueue(audit, f"{key}-atomic")
    yield inside
    later = tasks.plain.using(run_after=timedelta(seconds=0.3))
    yield later.enqueue(audit, f"{key}-later")
    yield tasks.fail.enqueue(audit, f"{key}-fail")
    yield tasks.retried.enqueue(audit, f"{key}-retried")
    yield from enqueue_many([tasks.plain.s(audit, f"{key}-{n}") for n in range(7)])


if __name__ == "__main__":
    main(*sys.argv[1:])
