"""What a statement demands of the rows that it changes, and what it has to demand.

A worker names its rows by what it was told when it claimed them: since then others may
have got them, so that such a statement repeats the lease and the worker. Other rows
were locked, or found by the same statement: there the state, or a time, tells that they
are still what was decided about.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

TABLES = "task|result|deadletter|worker"
CHANGE = re.compile(
    rf"(?:(?<!KEY )UPDATE|DELETE FROM) django_jobs_(?:{TABLES})\b.*", re.DOTALL
)
KIND = re.compile(
    rf"(UPDATE|DELETE) (?:FROM )?django_jobs_({TABLES})(?: FORCE .*?\))?( SET \w+)?"
)
#: Ways to write a column so that no index matches it.
BARE = re.compile(r"\+(\w+)|CONCAT\((\w+)\)|COALESCE\((\w+), \3\)|(\w+) \|\| ''")
#: The places of a list, or of a query that finds and locks.
LIST = re.compile(r"\b(?:row)?id( IN| = ANY\(ARRAY)(?= ?\()")
#: One demand: a column and how it is compared, the state with what.
DEMAND = re.compile(r"ids|state (?:=|<>) '\w+'|\w+ (?:=|<=|>)|NOT EXISTS")

IS_OURS = "id = & lease = & state = 'RUNNING' & worker_id ="
#: Per kind of change what its statements may demand, one line for each of them.
FENCES = {
    # What a running task says of itself.
    "UPDATE task SET metadata": {IS_OURS},
    # A request to stop.
    "UPDATE task SET revoke_requested": {"ids & state = 'RUNNING'"},
    "UPDATE task SET state": {
        "ids & state = 'READY'",  # claimed
        "ids & state = 'RUNNING'",  # put back
        "ids & run_after <= & state = 'SCHEDULED'",  # due
        "ids & state = 'SCHEDULED'",  # adopted
    },
    "DELETE task": {
        IS_OURS,  # done, in the words of the worker
        "ids & state = 'RUNNING'",  # done, and locked
        "ids & state = 'RUNNING' & worker_id =",
        "ids & state <> 'RUNNING'",  # revoked
    },
    "DELETE result": {"ids & prune_at <=", "finished_at <= & ids"},
    "DELETE deadletter": {
        "ids",  # put back to work: its table says what state it is in
        "ids & prune_at <=",
        "finished_at <= & ids",
    },
    "UPDATE worker SET expires_at": {
        "expires_at > & id = & state <> 'dead'",  # renewed
        "id = & state <> 'dead'",  # the same on SQLite
        "expires_at > & ids",  # declared dead
    },
    "UPDATE worker SET state": {"expires_at <= & ids"},  # buried
    "DELETE worker": {
        "ids",  # its own row, at its start and at its end
        "NOT EXISTS & expires_at <= & ids",  # forgotten
    },
}


def changes_in(text: str) -> Iterator[tuple[str, str]]:
    """Yield the kind of each change in a statement, and what it demands of its rows."""
    text = " ".join(re.sub(r"[\"`]", "", text).split())
    for change in CHANGE.findall(text):
        found = KIND.match(change)
        assert found, change
        yield (
            "{} {}{}".format(*(group or "" for group in found.groups())),
            demands(change),
        )


def demands(change: str) -> str:
    """Return the conditions of a change that hold for every row, sorted."""
    text = BARE.sub(lambda found: next(filter(None, found.groups())), change)
    text = without_brackets(LIST.sub("ids\\1", text))
    where = re.split(r" (?:RETURNING|ORDER BY|LIMIT) ", text.partition(" WHERE ")[2])[0]
    parts = [part.strip() for part in where.split(" AND ")]
    return " & ".join(sorted(demand(part) for part in parts if part != "TRUE"))


def without_brackets(text: str) -> str:
    """Return a text up to the first bracket that it only closes, without all others."""
    kept, depth = [], 0
    for each in text:
        depth += (each == "(") - (each == ")")
        if depth < 0:
            break
        if depth == 0 and each != ")":
            kept.append(each)
    return "".join(kept)


def demand(part: str) -> str:
    """Return a condition without its value; as it is if it is none that is known."""
    found = DEMAND.match(part)
    return found.group() if found and " OR " not in part else part
