"""What to say of a task that is not finished in time."""

from __future__ import annotations

from datetime import datetime

from django_jobs.records import TaskRecord
from django_jobs.states import State
from django_jobs.texts import shorten

#: So much of an error's message is told, in characters.
_MESSAGE_LENGTH = 200


def too_late(record: TaskRecord, limit: float) -> str:
    """Say in which state a task is after so many seconds, and where to look."""
    words = f"task {record.name} {record.id} is not finished after {limit:g} s: "
    if record.errors:
        return words + _after_failures(record)
    words += f"it is {record.state}"
    if record.state == State.SCHEDULED:
        words += f" for {_moment(record.run_after)}"
    if record.state in (State.READY, State.SCHEDULED):
        words += "; is a worker running? See manage.py jobs status"
    return words


def _after_failures(record: TaskRecord) -> str:
    """Say what the newest failure was, and how it goes on."""
    error = record.errors[-1]
    name = error.exception_class.removeprefix("builtins.")
    number = record.attempt - (record.state == State.RUNNING)
    words = f"attempt {number} of {record.max_attempts} failed with {name}"
    if message := " ".join(error.message.split()):
        words += f": {shorten(message, _MESSAGE_LENGTH)}"
    if record.state == State.SCHEDULED:
        words += f"; next try at {_moment(record.run_after)}"
    else:
        words += f"; it is {record.state}"
    return f"{words}; see manage.py jobs show {record.id}"


def _moment(value: datetime | None) -> str:
    return "-" if value is None else f"{value:%Y-%m-%d %H:%M:%S %Z}".rstrip()
