"""Faults of the store, each of which the simulation must find.

A mutant changes statements on their way from template to text, or replaces a method.
``python -m tests.simulation --mutant lease`` plays seeds until one fails.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

from django_jobs.store.completing import Completing
from django_jobs.store.control import Control
from django_jobs.store.dialect import Dialect
from django_jobs.store.inserting import Inserting
from django_jobs.store.mysql import MySQLStore
from django_jobs.store.workers import Workers

ALL = ("sqlite", "postgresql", "mysql")
#: Where others write while one reads.
SERVERS = ("postgresql", "mysql")


@dataclass
class Mutant:
    """A fault: what is changed in which statements, and which methods are replaced."""

    says: str
    #: Of a template that matches the first expression, the second becomes the third.
    texts: Sequence[tuple[str, str, str]] = ()
    methods: dict[tuple[type, str], Any] = field(default_factory=dict)
    vendors: tuple[str, ...] = ALL

    def change(self, template: str) -> str:
        for where, old, new in self.texts:
            if re.search(where, template):
                template = re.sub(old, new, template)
        return template


@contextmanager
def active(mutant: Mutant) -> Iterator[None]:
    """Have the stores of this process be at fault."""
    original = Dialect.sql

    def sql(self: Dialect, template: str) -> str:
        return original(self, mutant.change(template))

    with ExitStack() as stack:
        stack.enter_context(patch.object(Dialect, "sql", sql))
        for (owner, name), method in mutant.methods.items():
            stack.enter_context(patch.object(owner, name, method))
        yield


# -- replaced methods ------------------------------------------------------------------


class _ById(dict[Any, Any]):
    """Finds what is sought by (id, lease) whatever the lease is."""

    def pop(self, key: Any, default: Any = None) -> Any:
        found = next((each for each in self if each[0] == key[0]), None)
        return default if found is None else super().pop(found)


def _any_lease(method: Any) -> Any:
    return lambda self, *args: _ById(method(self, *args))


def _expect_nothing(self: Any, count: int, *touched: int) -> None:
    """Count nothing."""


def _not_deleted(delete_in: Any) -> Any:
    def keep(self: Any, table: str, *args: Any) -> int:
        return 0 if table == "task" else int(delete_in(self, table, *args))

    return keep


def _from_results(self: Any, table: str, ids: Any, *guard: Any) -> int:
    is_requeue = table == "dead_letter" and not guard
    return super(Control, self).delete_in(
        "result" if is_requeue else table, ids, *guard
    )


def _look_first(self: Any, tasks: Sequence[Any]) -> Any:
    finished = self.finished([task.id for task in tasks])
    return self._insert_all([task for task in tasks if task.id not in finished])


def _nobody(self: Any, orphans: Any) -> set[str]:
    return set()


def _always(complete_here: Any) -> Any:
    return lambda self, *args: complete_here(self, *args) or True


RESCUES = r"NOT EXISTS \(\s+SELECT 1 FROM \{worker\}"
CLAIMS = r"SET state = 'RUNNING'|state = 'READY' AND queue_name"
PROMOTES = r"SET state = 'READY'|run_after <= \{now\}\s+ORDER BY run_after"
COUNTS = {(Dialect, "expect"): _expect_nothing}

MUTANTS = {
    "lease": Mutant(
        "an outcome counts whatever its lease is",
        [
            ("", r"lease = %s", "lease >= 0 * %s"),
            ("DELETE FROM", r"AND lease = \(%\(leases\)s.*\n", ""),
        ],
        {
            (Completing, "_hold"): _any_lease(Completing._hold),
            (MySQLStore, "_successes"): _any_lease(MySQLStore._successes),
        },
    ),
    "worker": Mutant(
        "an outcome counts whoever has the task now",
        [
            (
                "AND .*RUNNING|RUNNING.*AND",
                r"AND worker_id = %s",
                "AND (worker_id = %s OR TRUE)",
            ),
            ("RUNNING", r"CONCAT\(worker_id\) = %s", "(%s IS NOT NULL)"),
            ("DELETE FROM", r"worker_id = %\(worker\)s::uuid", "TRUE"),
        ],
    ),
    "rescue": Mutant(
        "a rescue takes the tasks of the living",
        [(RESCUES, r"(FROM \{worker\} w WHERE)", r"\1 FALSE AND")],
        {(Workers, "_living"): _nobody},
    ),
    "bury": Mutant(
        "a worker goes on when a part of its tasks was taken",
        [("SET state = 'dead'", "SET state = 'dead'", "SET state = 'late'")],
        vendors=("sqlite",),
    ),
    "requeue": Mutant(
        "results are put back to work as well",
        [(r"\{by_id\[dead_letter\]\}", "dead_letter", "result")],
        {
            **COUNTS,
            (Control, "delete_in"): _from_results,  # Control has none of its own
        },
    ),
    "requeue lease": Mutant(
        "a dead letter starts from lease 0 again",
        [
            (
                r"INSERT INTO \{task\}",
                "max_attempts, lease,(?! time_limit, enqueued_at,\n)",
                "max_attempts, 0,",
            )
        ],
    ),
    "promote": Mutant(
        "whatever is due becomes READY",
        [
            (PROMOTES, r"(\{bare_state\}|state) = 'SCHEDULED'", "TRUE"),
            ("", r"FORCE INDEX \(django_jobs_task_scheduled\)", ""),
        ],
    ),
    "complete": Mutant(
        "a task is copied and not deleted",
        [
            (
                "DELETE FROM {task}.*lease",
                "DELETE FROM.*WHERE",
                "DELETE FROM {task} WHERE FALSE AND",
            ),
        ],
        {
            **COUNTS,
            (Dialect, "delete_in"): _not_deleted(Dialect.delete_in),
            (MySQLStore, "delete_in"): _not_deleted(MySQLStore.delete_in),
        },
    ),
    "prune": Mutant(
        "what is finished is pruned before its time",
        [
            ("", r"prune_at <= \{now\}", "TRUE"),
            ("", r"COALESCE\(prune_at, prune_at\) <= \{now\}", "TRUE"),
        ],
    ),
    "claim": Mutant(
        "a claim locks nothing and trusts what it has read",
        [
            (CLAIMS, r"FOR NO KEY UPDATE SKIP LOCKED|\{lock_free\}", ""),
            (CLAIMS, r"\{bare_state\} = 'READY'", "TRUE"),
        ],
        vendors=SERVERS,
    ),
    "dead claim": Mutant(
        "a worker claims after its lease",
        [
            (
                CLAIMS,
                r"AND EXISTS (\(SELECT 1 FROM .worker. WHERE)",
                r"AND NOT EXISTS \1 FALSE AND",
            )
        ],
    ),
    "revoke": Mutant(
        "a running task is revoked as a waiting one",
        [
            ("SELECT id, state, revoke", "SELECT id, state", "SELECT id, ''"),
            ("", r"\{bare_state\} <> 'RUNNING'", "TRUE"),
        ],
    ),
    "sign off": Mutant(
        "who leaves gives back what others have",
        [
            (
                "revoke_requested FROM {running_task}",
                r"worker_id = %s",
                "(worker_id = %s OR TRUE)",
            )
        ],
    ),
    "insert": Mutant(
        "an insert that is repeated looks first and writes then",
        methods={(Inserting, "_insert_again"): _look_first},
    ),
    "atomic": Mutant(
        "an atomic task is committed though its lease is over",
        methods={(Completing, "complete_here"): _always(Completing.complete_here)},
    ),
}
