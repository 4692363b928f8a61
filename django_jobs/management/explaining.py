"""Why something does not happen: words for people who look at the queue."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

from django.db import DatabaseError, connections

from django_jobs.conf import conf
from django_jobs.control import Status
from django_jobs.definitions import all_definitions, find_definition
from django_jobs.durations import in_words
from django_jobs.management.rendering import More, moment
from django_jobs.models import DeadLetter, Result, Task
from django_jobs.records import TaskRecord
from django_jobs.states import LIVE_STATES, State
from django_jobs.store.errors import is_not_migrated
from django_jobs.store.tables import lacking, migrate_first
from django_jobs.worker.options import serves

#: So many rows of each table, the newest, are looked at for names.
_ROWS_FOR_NAMES = 10_000
#: So many names are proposed.
_MOST_PROPOSED = 3


def unserved_queues(status: Status) -> dict[str, int]:
    """Return the queues whose due tasks no live worker takes: their number of tasks."""
    alive = [worker.queues for worker in status.workers if worker.is_alive]
    return {
        queue: counts[State.READY]
        for queue, counts in status.queues.items()
        if counts.get(State.READY) and not any(serves(each, queue) for each in alive)
    }


def complaints(status: Status) -> list[str]:
    """Return a line for each reason why due tasks stay where they are."""
    unserved = unserved_queues(status)
    if not any(worker.is_alive for worker in status.workers):
        due = sum(unserved.values())
        words = f", and {_tasks_are(due)} due" if due else ""
        return [f"No worker is running{words}; start one with: manage.py jobworker"]
    return [
        f"No running worker serves the queue {queue!r}, where {_tasks_are(count)} due; "
        f"start one with: manage.py jobworker --queues {queue}"
        for queue, count in unserved.items()
    ]


def why_not_migrated(alias: str) -> str:
    """Say what a database lacks that is there; empty when it has all that we need."""
    try:
        missing = lacking(connections[alias])
    except DatabaseError:
        return ""  # away, as it seems
    return migrate_first(alias, missing) if missing else ""


def _tasks_are(count: int) -> str:
    return "1 task is" if count == 1 else f"{count} tasks are"


def more_about(task: TaskRecord, alias: str) -> More:
    """Return what else there is to say about a task."""
    is_live = task.state in LIVE_STATES and task.state != State.RUNNING
    log = _value_of(Result, "log", task, alias)
    message = _value_of(DeadLetter, "message", task, alias)
    return More(
        _why_not_run(task, alias) if is_live else "",
        None if log is None else str(log),
        None if message is None else str(message),
    )


def _value_of(
    model: type[Task | Result | DeadLetter], column: str, task: TaskRecord, alias: str
) -> Any:
    """Return what a column holds of a task; None for what cannot be read."""
    rows = model.objects.using(alias).filter(pk=task.id)
    try:
        return rows.values_list(column, flat=True).first()
    except (DatabaseError, TypeError, ValueError) as error:
        if is_not_migrated(error):
            raise
        return None


def _why_not_run(task: TaskRecord, alias: str) -> str:
    since = _value_of(Task, "unknown_since", task, alias)
    words = []
    if find_definition(task.name) is None:
        hint = did_you_mean(task.name, [each.name for each in all_definitions()])
        words.append(f"no task is registered here by the name {task.name!r}.{hint}")
    if since is not None:
        limit = in_words(conf().UNKNOWN_TASK_TIMEOUT)
        words.append(
            f"No worker that claimed it since {moment(since)} knows its name; "
            f"it becomes a dead letter {limit} after that."
        )
    return " ".join(words)


def hint_about_task(name: str | None, alias: str) -> str:
    """Return what to look for instead of a task that is not found."""
    if name is None or find_definition(name) is not None:
        return ""
    registered = {each.name for each in all_definitions()}
    hint = did_you_mean(name, registered | _names_in_tables(alias))
    return f" Mind that no task is registered by the name {name!r}.{hint}"


def hint_about_error(error: str | None, alias: str) -> str:
    """Propose the classes of errors of dead letters that look like this one."""
    if error is None:
        return ""
    rows = DeadLetter.objects.using(alias).order_by("-pk")
    rows = rows.exclude(exception_class="")
    paths = rows.values_list("exception_class", flat=True)[:_ROWS_FOR_NAMES]
    known = set(paths)
    if any(_is_last_part(error, path) for path in known):
        return ""  # it is there; something else keeps its tasks out
    same = [path for path in known if _is_last_part(error.lower(), path.lower())]
    return _proposal(sorted(same)) if same else did_you_mean(error, known)


def _is_last_part(name: str, path: str) -> bool:
    return f".{path}".endswith(f".{name}")


def _names_in_tables(alias: str) -> set[str]:
    names: set[str] = set()
    for model in (Task, Result, DeadLetter):
        rows = model.objects.using(alias).order_by("-pk")
        names.update(rows.values_list("name", flat=True)[:_ROWS_FOR_NAMES])
    return names


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Propose full names that end in this one, else names that look like it."""
    known = sorted(set(names) - {name})
    near = [each for each in known if each.endswith(f".{name}")]
    near = near or difflib.get_close_matches(name, known, 1)
    return _proposal(near or _near_last_parts(name, known))


def _proposal(near: list[str]) -> str:
    proposed = " or ".join(map(repr, near[:_MOST_PROPOSED]))
    return f" Did you mean {proposed}?" if proposed else ""


def _near_last_parts(name: str, known: list[str]) -> list[str]:
    last = {each.rpartition(".")[2] for each in known}
    near = difflib.get_close_matches(name.rpartition(".")[2], last, 1)
    return [each for each in known if each.rpartition(".")[2] in near]
