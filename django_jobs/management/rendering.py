"""What the commands print: tables and details for people, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from django.utils.timezone import is_aware, localtime

from django_jobs.control import Details, Status
from django_jobs.durations import in_words
from django_jobs.masking import masked_arguments, masked_value
from django_jobs.records import AttemptLine, TaskLine, TaskRecord, WorkerLine
from django_jobs.states import LIVE_STATES, RESULT_STATES, State
from django_jobs.texts import clean, progress_in_words, shorten
from django_jobs.worker.heartbeat import is_overdue

#: Longest text that is printed in whole.
MOST_BYTES = 100_000
#: Live states in the order of a task's life.
_COLUMNS = [state for state in State if state in LIVE_STATES]
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}
_CONTROLS_BUT_LINES = {**_CONTROLS, 9: "    ", 10: "\n"}


class More(NamedTuple):
    """What the record of a task does not tell."""

    #: Why it is not run, empty when there is nothing in its way that we know of.
    why_not_run: str = ""
    #: The log tail of a task that is done; those of other attempts are with them.
    log: str | None = None
    #: The error that a dead letter tells of; None of any other task.
    message: str | None = None


NOTHING_MORE = More()


# -- for programs ------------------------------------------------------------------


def as_json(value: Any) -> str:
    """Return a value as JSON; times are ISO 8601."""
    return json.dumps(value, indent=2, default=_plain)


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def status_data(status: Status, unserved: Iterable[str] = ()) -> dict[str, Any]:
    """Return the status; ``unserved`` are queues whose due tasks nobody takes."""
    return {
        "now": status.now,
        "queues": {
            name: {state: counts.get(state, 0) for state in _COLUMNS}
            for name, counts in status.queues.items()
        },
        "dead_letters": status.dead_letters,
        "oldest_ready_seconds": status.oldest_ready,
        "workers": [worker._asdict() for worker in status.workers],
        "unserved_queues": list(unserved),
    }


def list_data(lines: Sequence[TaskLine]) -> dict[str, Any]:
    return {"tasks": [line._asdict() for line in lines]}


def details_data(details: Details, more: More = NOTHING_MORE) -> dict[str, Any]:
    """Return a task with its values decoded; what is no JSON stays a text."""
    task = details.task
    data = task._asdict()
    del data["errors"], data["worker_ids"]
    args, kwargs = masked_arguments(task.name, task.args, task.kwargs)
    data.update(
        args=_decoded(args),
        kwargs=_decoded(kwargs),
        metadata=_decoded(task.metadata),
        progress=_decoded(task.progress),
        return_value=_decoded(masked_value(task.name, task.return_value)),
        attempts=[attempt._asdict() for attempt in details.attempts],
        why_not_run=more.why_not_run,
        log=more.log,
        message=more.message,
    )
    return data


def _decoded(text: str | None) -> Any:
    try:
        return None if text is None else json.loads(text)
    except (ValueError, RecursionError):
        return text


# -- for people --------------------------------------------------------------------


def status_text(status: Status) -> str:
    age = status.oldest_ready
    facts = {
        "Oldest ready": "-" if age is None else in_words(age),
        "Dead letters": str(status.dead_letters),
    }
    parts = [_facts(facts)]
    if status.queues:
        parts.append(_table(_queue_columns(), list(status.queues.items())))
    if status.workers:
        parts.append(_table(_worker_columns(status.now), status.workers))
    return "\n\n".join(parts)


def list_text(lines: Sequence[TaskLine], state: str | None = None) -> str:
    """Return the tasks as a table; ``state`` is the one that they were chosen by."""
    if not lines:
        return ""
    times = [_ENQUEUED] if state is None else _OF_STATE.get(State(state), [_ENQUEUED])
    return _table([*_FIRST_COLUMNS, *times, _ARGUMENTS], lines)


def details_text(details: Details, more: More = NOTHING_MORE) -> str:
    """Return everything known of a task, its attempts the oldest first."""
    facts = _task_facts(details.task)
    if more.why_not_run:
        facts["Not run"] = one_line(more.why_not_run, 1000)
    if more.message and more.message not in [one.message for one in details.attempts]:
        facts["Error"] = one_line(more.message, 1000)  # no attempt tells of it
    parts = [_facts(facts)]
    parts += [_value(title, text) for title, text in _values(details.task) if text]
    parts += [_attempt(attempt) for attempt in details.attempts]
    if more.log:
        parts.append(f"Log:\n{_indented(more.log)}")
    return "\n\n".join(parts)


def one_line(text: str, length: int = 200) -> str:
    """Return a text as one line without what moves a terminal's cursor."""
    return shorten(clean(text, MOST_BYTES).translate(_CONTROLS), length)


def lines_of(text: str) -> str:
    """Return a text with its lines, without what else moves a terminal's cursor."""
    return clean(text, MOST_BYTES).translate(_CONTROLS_BUT_LINES)


def moment(value: datetime | None) -> str:
    """Return a time to the second, in the zone of the settings."""
    if value is None:
        return "-"
    local = localtime(value) if is_aware(value) else value
    return local.strftime("%Y-%m-%d %H:%M:%S")


class _Column(NamedTuple):
    title: str
    text: Callable[[Any], str]
    is_number: bool = False


_ENQUEUED = _Column("ENQUEUED", lambda line: moment(line.enqueued_at))
_DUE = _Column("DUE", lambda line: moment(line.run_after))
_FINISHED = _Column("FINISHED", lambda line: moment(line.finished_at))
_REASON = _Column("REASON", lambda line: one_line(line.reason))
#: What one looks for in tasks of one state; in a list of all, when they were enqueued.
_OF_STATE = {
    State.READY: [_ENQUEUED, _DUE],
    State.SCHEDULED: [_ENQUEUED, _DUE],
    **{state: [_ENQUEUED, _FINISHED] for state in RESULT_STATES},
    State.FAILED: [_FINISHED, _REASON],
}
_FIRST_COLUMNS = [
    _Column("ID", lambda line: str(line.id)),
    _Column("STATE", lambda line: str(line.state)),
    _Column("TASK", lambda line: one_line(line.name)),
    _Column("QUEUE", lambda line: one_line(line.queue_name)),
    _Column("ATTEMPTS", lambda line: f"{line.attempt}/{line.max_attempts}"),
]
_ARGUMENTS = _Column("ARGUMENTS", lambda line: one_line(line.summary, 60))


def _queue_columns() -> list[_Column]:
    def count(state: str) -> Callable[[Any], str]:
        return lambda item: str(item[1].get(state, 0))

    columns = [_Column(state, count(state), is_number=True) for state in _COLUMNS]
    return [_Column("QUEUE", lambda item: one_line(item[0])), *columns]


def _worker_columns(now: datetime) -> list[_Column]:
    def heard(worker: WorkerLine) -> str:
        if worker.seen_at is None:
            return "-"
        seconds = (now - worker.seen_at).total_seconds()
        return f"{in_words(max(seconds, 0.0))} ago"

    def state(worker: WorkerLine) -> str:
        if not worker.is_alive:
            return "lost"
        is_gone = worker.seen_at is not None and is_overdue(worker.seen_at, now)
        return f"{worker.state}{' (gone?)' if is_gone else ''}"

    return [
        _Column("WORKER", lambda worker: one_line(worker.name)),
        _Column("STATE", state),
        _Column("HOST", lambda worker: one_line(worker.host)),
        _Column("PID", lambda worker: str(worker.pid), is_number=True),
        _Column("QUEUES", lambda worker: one_line(worker.queues) or "all"),
        _Column("RUNNING", lambda worker: str(worker.running), is_number=True),
        _Column("HEARTBEAT", heard),
    ]


def _table(columns: Sequence[_Column], rows: Sequence[Any]) -> str:
    """Return rows under their titles, aligned; numbers to the right."""
    cells = [[column.title for column in columns]]
    cells += [[column.text(row) for column in columns] for row in rows]
    widths = [max(map(len, each)) for each in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(
            text.rjust(width) if column.is_number else text.ljust(width)
            for text, width, column in zip(line, widths, columns, strict=True)
        ).rstrip()
        for line in cells
    )


def _facts(facts: Mapping[str, str]) -> str:
    width = max(map(len, facts))
    return "\n".join(f"{name.ljust(width)}  {text}" for name, text in facts.items())


def _task_facts(task: TaskRecord) -> dict[str, str]:
    state = str(task.state)
    if task.reason:
        state += f" ({one_line(task.reason)})"
    if task.revoke_requested:
        state += " (is being revoked)"
    attempts = f"{task.attempt} of at most {task.max_attempts}"
    if task.crashes:
        attempts += f", {task.crashes} of them crashed"
    facts = {
        "Task": one_line(task.name),
        "Id": task.id,
        "State": state,
        "Queue": one_line(task.queue_name),
        "Priority": str(task.priority),
        "Attempts": attempts,
        "Enqueued": moment(task.enqueued_at),
        "Due": moment(task.run_after),
        "First started": moment(task.started_at),
        "Last started": moment(task.last_attempted_at),
        "Finished": moment(task.finished_at),
    }
    if task.progress is not None:
        facts["Progress"] = one_line(progress_in_words(task.progress), 1000)
    return facts


def _values(task: TaskRecord) -> list[tuple[str, str | None]]:
    args, kwargs = masked_arguments(task.name, task.args, task.kwargs)
    return [
        ("Arguments", None if args == "[]" else args),
        ("Arguments by name", None if kwargs == "{}" else kwargs),
        ("Metadata", None if task.metadata == "{}" else task.metadata),
        ("Return value", masked_value(task.name, task.return_value)),
    ]


def _value(title: str, text: str) -> str:
    value = _decoded(text)
    pretty = value if value is text else json.dumps(value, indent=2, ensure_ascii=False)
    return f"{title}:\n{_indented(pretty)}"


def _attempt(attempt: AttemptLine) -> str:
    where = f" on {one_line(attempt.worker_name)}" if attempt.worker_name else ""
    title = f"Attempt {attempt.number}: {attempt.verdict}{where}"
    if attempt.requeued_at is not None:
        title += f", requeued {moment(attempt.requeued_at)}"
    times = f"{moment(attempt.started_at)} to {moment(attempt.finished_at)}"
    texts = [times, attempt.traceback or _error(attempt)]
    if attempt.log:
        texts += ["Log:", attempt.log]
    return "\n".join([title, *[_indented(text) for text in texts if text]])


def _error(attempt: AttemptLine) -> str:
    return ": ".join(filter(None, [attempt.exception_class, attempt.message]))


def _indented(text: str) -> str:
    return "\n".join(
        f"  {line}".rstrip() for line in lines_of(text).split("\n")
    ).rstrip()
