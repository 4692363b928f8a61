"""Ledgers that are made up, to see what the checker of the chaos says of them."""

from __future__ import annotations

from collections import Counter
from typing import Any

from django_jobs.states import Reason, State, Verdict
from tests.processes.chaos import checker, tasks
from tests.processes.chaos.audit import ProducedLine, RunLine
from tests.processes.chaos.journal import EVERYWHERE, Blow, Journal, Strike
from tests.processes.chaos.ledger import Ledger
from tests.processes.chaos.rows import LOST, Answer, Gone, Record, Row, Rows


def produced(event: str, key: str = "a", **more: Any) -> ProducedLine:
    values = {
        "kind": "one",
        "due": 1.0,
        "time": 1.0,
        "error": "-",
        "task": tasks.plain.name,
        "by": "producer1",
        **more,
    }
    return ProducedLine(event=event, key=key, **values)


def run(event: str, key: str = "a", **more: Any) -> RunLine:
    values = {
        "lease": 1,
        "attempt": 1,
        "host": "worker1",
        "pid": 7,
        "born": "70",
        "time": 2.0 if event == "start" else 3.0,
        **more,
    }
    return RunLine(event=event, key=key, **values)


def row(key: str = "a", **more: Any) -> Row:
    values = {
        "table": "Result",
        "id": f"id of {key}",
        "name": tasks.plain.name,
        "state": State.SUCCESSFUL,
        "reason": "",
        "attempt": 1,
        "lease": 1,
        "crashes": 0,
        "max_attempts": 3,
        "returned": Answer(key, more.get("lease", 1)),
        "finished": None,
        **more,
    }
    return Row(key=key, **values)


def record(number: int = 1, key: str = "a", **more: Any) -> Record:
    """Return the record of a crash."""
    values = {"verdict": Verdict.CRASHED, "error": LOST, "finished": 4.0, **more}
    return Record(f"id of {key}", number, **values)


def failure(number: int = 1, key: str = "a", **more: Any) -> Record:
    values = {"verdict": Verdict.RETRY, "error": "ValueError", **more}
    return record(number, key, **values)


def ledger(
    *lines: ProducedLine | RunLine,
    rows: list[Row] | None = None,
    records: list[Record] | None = None,
    pruned: list[Gone] | None = None,
    effects: list[str] | None = None,
    orders: set[str] | None = None,
    **more: Any,
) -> Ledger:
    return Ledger(
        [line for line in lines if isinstance(line, ProducedLine)],
        [line for line in lines if isinstance(line, RunLine)],
        Rows(
            [row()] if rows is None else rows,
            records or [],
            pruned or [],
            Counter(effects or []),
            orders or set(),
        ),
        **more,
    )


ENQUEUED = produced("try"), produced("ack")
RUN = run("start"), run("end")
ATOMIC = row(name=tasks.atomic.name)
UNFINISHED = row(table="Task", state=State.READY)
DEAD = {"table": "DeadLetter", "state": State.FAILED, "returned": None}
SPENT = {**DEAD, "reason": Reason.ATTEMPTS, "attempt": 3}
CRASHED = {**DEAD, "reason": Reason.CRASHES, "attempt": 3, "crashes": 3}
#: Two runs that raise, as a doomed task has them.
RAISED = (
    *(run("start"), run("raise")),
    run("start", lease=2, attempt=2, time=4.5),
    run("raise", lease=2, attempt=2, time=5.0),
)
DOOMED = row(
    name=tasks.doomed.name, **SPENT | {"attempt": 2, "max_attempts": 2, "lease": 2}
)
REVOKED = row(state=State.REVOKED, attempt=0, returned=None)
UNKNOWN = {**DEAD, "name": tasks.FORGOTTEN, "reason": Reason.UNKNOWN_TASK}
FLEETING = produced("try", task=tasks.fleeting.name), produced("ack")
GONE = Gone("id of a", "a", was_due=True)
#: A second run: the first one counts as a crash.
AGAIN = (
    run("start", lease=2, attempt=2, time=7.0),
    run("end", lease=2, attempt=2, time=7.5),
)
SECOND = row(lease=2, attempt=2, crashes=1)
FAILED = [failure(1), failure(2, verdict=Verdict.FAILED, finished=6.0)]
LEASE_LOST = [record()]
CRASHES = [record(number) for number in (1, 2, 3)]


def found(one: Ledger) -> dict[str, list[str]]:
    return {check: keys for check, keys in checker.violations(one).items() if keys}


def hit(*hosts: str, **more: Any) -> Strike:
    """Return a strike from 2.5 to 2.9 that hit these hosts, or everybody."""
    values = {"fault": "reset", "is_outage": False, "began": 2.5, "ended": 2.9, **more}
    strike = Strike(**values)
    strike.blows = [Blow(host, strike.began) for host in hosts or (EVERYWHERE,)]
    strike.hits = len(strike.blows)
    return strike


def journal(*strikes: Strike) -> Journal:
    return Journal(0.0, list(strikes))
