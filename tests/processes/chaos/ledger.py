"""All that was written about a run, in files and in the database, by key."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from django_jobs.states import State
from tests.processes.chaos import audit
from tests.processes.chaos.audit import ProducedLine, RunLine
from tests.processes.chaos.hosts import Death
from tests.processes.chaos.journal import Journal
from tests.processes.chaos.rows import Record, Row, Rows
from tests.processes.chaos.tasks import CHILD, deadly, outbox

#: What a producer asked for, and what it was answered.
Answered = tuple[ProducedLine, ProducedLine]
#: Ways of a producer: the transaction is rolled back; it holds an order as well.
UNDONE, ORDERED = "undone", "ordered"


@dataclass
class Ledger:
    """What was asked for, what ran, what was done to it, and what there is."""

    produced: list[ProducedLine]
    runs: list[RunLine]
    database: Rows
    deaths: list[Death] = field(default_factory=list)
    journal: Journal = field(default_factory=lambda: Journal(0.0))
    #: How many results those who prune say that they deleted.
    said_pruned: int = 0
    #: How many times longer a second is on this machine.
    second: float = 1.0
    events: dict[str, dict[str, ProducedLine]] = field(init=False)
    starts: dict[str, list[RunLine]] = field(init=False)
    records: dict[str, list[Record]] = field(init=False)  #: by id of the task
    suicides: list[Death] = field(init=False)
    places: dict[str, list[Row]] = field(init=False)
    acked: set[str] = field(init=False)

    def __post_init__(self) -> None:
        self.events = defaultdict(dict)
        for line in self.produced:
            self.events[line.event][line.key] = line
        self.starts = defaultdict(list)
        for run in sorted(self.runs, key=lambda each: each.time):
            if run.event == "start":
                self.starts[run.key].append(run)
        self.records = defaultdict(list)
        for record in self.database.records:
            self.records[record.id].append(record)
        self.suicides = [
            Death(start.host, start.pid, start.born, start.time)
            for key, starts in self.starts.items()
            if key in self.tried and self.tried[key].task == deadly.name
            for start in starts
        ]
        self.deaths = [*self.deaths, *self.suicides]
        self.places = defaultdict(list)
        for row in self.database.rows:
            self.places[row.key].append(row)
        # What a task enqueues is acknowledged by its own success.
        self.acked = set(self.events["ack"]) | {
            row.key + CHILD
            for row in self.database.rows
            if row.name == outbox.name and row.state == State.SUCCESSFUL
        }

    @property
    def tried(self) -> dict[str, ProducedLine]:
        return self.events["try"]

    @property
    def ended(self) -> set[str]:
        return {line.key for line in self.runs if line.event == "end"}

    @property
    def missing(self) -> set[str]:
        """Keys of which the result was pruned, as the database says."""
        return {gone.key for gone in self.database.pruned}

    def answered(self, ask: str, answer: str) -> dict[str, list[Answered]]:
        """Return by key what producers asked for, each with the answer that it got."""
        found, asked = defaultdict(list), {}
        for line in self.produced:
            if line.event == ask:
                asked[line.by, line.key] = line
            elif line.event == answer and (line.by, line.key) in asked:
                found[line.key].append((asked.pop((line.by, line.key)), line))
        return found

    def row(self, key: str) -> Row | None:
        return next(iter(self.places.get(key, ())), None)

    def name_of(self, key: str) -> str:
        """Return the name of a task; empty where that is not known."""
        if (row := self.row(key)) is not None:
            return row.name
        return self.tried[key].task if key in self.tried else ""

    def is_known(self, key: str) -> bool:
        if key.endswith(CHILD):
            return key in self.acked
        # Whatever went wrong in a transaction that was to be rolled back: it was.
        return key in self.tried and self.tried[key].kind != UNDONE


def read_ledger(
    folder: Path, rows: Rows, deaths: list[Death], journal: Journal
) -> Ledger:
    return Ledger(
        produced=list(audit.read_produced(folder / audit.PRODUCED)),
        runs=list(audit.read_runs(folder / audit.RUNS)),
        database=rows,
        deaths=deaths,
        journal=journal,
    )
