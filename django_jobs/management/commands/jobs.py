"""``manage.py jobs``: parse what is asked, call control, print what it answers."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError, connections

from django_jobs import control, durations
from django_jobs.exceptions import SetupError, TaskNotFound, seconds
from django_jobs.ids import canonical
from django_jobs.management import explaining, rendering
from django_jobs.options import did_you_mean
from django_jobs.states import State
from django_jobs.store import get_store

#: Dead letters that are put back to work in one transaction.
_RETRIED_AT_ONCE = 500
#: Longest note, in bytes.
MOST_NOTED = 1000
#: A number of rows has no more digits.
_MOST_DIGITS = 9


class Command(BaseCommand):
    help = "Look at the queue and do something about it."

    def add_arguments(self, parser: CommandParser) -> None:
        self._parser = parser
        commands = parser.add_subparsers(
            dest="command", metavar="command", title="commands"
        )
        for name, (words, add, _) in _COMMANDS.items():
            sub = commands.add_parser(name, help=words, description=words)
            _add_common(sub)
            add(sub)

    def handle(self, *args: Any, **options: Any) -> None:
        if options["command"] is None:
            self.stderr.write(self._parser.format_help(), lambda text: text)
            raise CommandError("say which command")
        alias = options["database"]
        if alias is not None and alias not in connections:
            hint = did_you_mean(alias, list(connections))
            raise CommandError(f"there is no database {alias!r} in DATABASES.{hint}")
        options["database"] = get_store(alias).alias
        try:
            _COMMANDS[options["command"]][2](self, options)
        except (DatabaseError, SetupError) as error:
            raise CommandError(_why_failed(options["database"], error)) from error

    # -- output --------------------------------------------------------------------

    def answer(self, options: dict[str, Any], data: Any, text: str) -> None:
        """Print the result in the format that is asked for."""
        output = rendering.as_json(data) if options["format"] == "json" else text
        if output:
            self.stdout.write(output)

    def note(self, text: str) -> None:
        self.stderr.write(text)

    # -- looking -------------------------------------------------------------------

    def do_status(self, options: dict[str, Any]) -> None:
        status = control.status(options["database"])
        unserved = explaining.unserved_queues(status)
        data = rendering.status_data(status, unserved)
        self.answer(options, data, rendering.status_text(status))
        for complaint in explaining.complaints(status):
            self.note(rendering.one_line(complaint, MOST_NOTED))

    def do_list(self, options: dict[str, Any]) -> None:
        limit = options["limit"]
        state = _state(options["state"])
        lines = control.list_tasks(
            state=state,
            queue=options["queue"],
            name=options["task"],
            limit=limit + 1,
            alias=options["database"],
        )
        shown = lines[:limit]
        text = rendering.list_text(shown, state)
        self.answer(options, rendering.list_data(shown), text)
        if len(lines) > limit:
            self.note(f"These are the newest {limit}; --limit N shows more.")
        elif not lines:
            self.note("No task matches." + _hint_about_task(options))

    def do_show(self, options: dict[str, Any]) -> None:
        [task_id] = _ids([options["id"]])
        try:
            details = control.show(task_id, options["database"])
        except TaskNotFound as error:
            raise CommandError(f"{error}; was its result pruned?") from error
        more = explaining.more_about(details.task, options["database"])
        data = rendering.details_data(details, more)
        self.answer(options, data, rendering.details_text(details, more))

    # -- doing ---------------------------------------------------------------------

    def do_retry(self, options: dict[str, Any]) -> None:
        ids = self._chosen(options)
        if options["dry_run"]:
            self.answer(options, {"would_retry": ids}, "\n".join(ids))
            self.note(f"{_tasks(len(ids))} would be retried.")
            return
        done: list[str] = []
        for start in range(0, len(ids), _RETRIED_AT_ONCE):
            part = ids[start : start + _RETRIED_AT_ONCE]
            done += control.requeue(part, options["database"])
        left = sorted(set(ids) - set(done))
        self.answer(options, {"retried": done, "not_dead_letters": left}, _lines(done))
        self.note(f"{_tasks(len(done))} back at work.")
        if left and options["ids"]:
            raise CommandError(_complaint("not a dead letter", left))

    def _chosen(self, options: dict[str, Any]) -> list[str]:
        """Return the dead letters to retry: those named, or those that match."""
        filters = {key: options[key] for key in ("task", "queue", "error")}
        is_filtered = options["all"] or any(filters.values())
        if bool(options["ids"]) == is_filtered:
            raise CommandError(
                "name the tasks by their ids, or choose dead letters with --all, "
                "--task, --queue or --error"
            )
        if options["ids"]:
            return _ids(options["ids"])
        found = control.find_dead_letters(
            name=filters["task"],
            queue=filters["queue"],
            error=filters["error"],
            alias=options["database"],
        )
        if not found:
            self.note("No dead letter matches." + _hints(options))
        if len(found) > 1 and not (options["yes"] or options["dry_run"]):
            self._confirm(f"Retry {_tasks(len(found))}?")
        return found

    def _confirm(self, question: str) -> None:
        if not sys.stdin.isatty():
            raise CommandError(f"{question} Say so with --yes, or look with --dry-run.")
        self.stderr.write(f"{question} [y/N] ", ending="")
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise CommandError("nothing was done")

    def do_revoke(self, options: dict[str, Any]) -> None:
        ids = _ids(options["ids"])
        answers = control.revoke(ids, options["database"])
        data = {each: answers.get(each, "not found") for each in ids}
        words = [f"{each}  {_REVOKED[answer]}" for each, answer in data.items()]
        self.answer(options, data, "\n".join(words))
        left = [each for each in ids if data[each] in ("finished", "not found")]
        if left:
            raise CommandError(_complaint("not revoked", left))

    def do_prune(self, options: dict[str, Any]) -> None:
        age, alias = options["older_than"], options["database"]
        if options["dry_run"]:
            count = control.count_prunable(age, alias)
            self.answer(options, {"would_delete": count}, f"{count} would be deleted")
        else:
            count = control.prune(age, alias)
            self.answer(options, {"deleted": count}, f"{count} deleted")


# -- options -------------------------------------------------------------------------


def _add_common(parser: CommandParser) -> None:
    parser.add_argument("--format", choices=("text", "json"), default="text")
    parser.add_argument("--database", metavar="ALIAS", help="the queue's database")
    # Django's own options are understood before the name of the command; they may
    # stand after it too.
    for option in ("--settings", "--pythonpath", "--verbosity"):
        parser.add_argument(option, default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    for option in ("--traceback", "--no-color", "--force-color", "--skip-checks"):
        parser.add_argument(
            option,
            action="store_true",
            default=argparse.SUPPRESS,
            help=argparse.SUPPRESS,
        )


def _add_filters(parser: CommandParser) -> None:
    parser.add_argument("--queue", metavar="NAME", help="only of this queue")
    parser.add_argument("--task", metavar="NAME", help="only this task, by its path")


def _add_nothing(parser: CommandParser) -> None:
    """The command takes what all take."""


def _add_list(parser: CommandParser) -> None:
    parser.add_argument(
        "--state", metavar="STATE", help=", ".join(state.lower() for state in State)
    )
    _add_filters(parser)
    parser.add_argument(
        "--limit", type=_positive, default=50, metavar="N", help="default: %(default)s"
    )


def _add_id(parser: CommandParser) -> None:
    parser.add_argument("id", metavar="ID")


def _add_ids(parser: CommandParser) -> None:
    parser.add_argument("ids", metavar="ID", nargs="+")


def _add_retry(parser: CommandParser) -> None:
    parser.add_argument("ids", metavar="ID", nargs="*")
    parser.add_argument("--all", action="store_true", help="all dead letters")
    _add_filters(parser)
    parser.add_argument(
        "--error", metavar="CLASS", help="only those that failed with this exception"
    )
    parser.add_argument("--yes", action="store_true", help="do not ask before many")
    _add_dry_run(parser)


def _add_prune(parser: CommandParser) -> None:
    parser.add_argument(
        "--older-than",
        type=_duration,
        metavar="7d",
        help="whatever is finished for so long (10s 5m 2h 7d), before its time or not",
    )
    _add_dry_run(parser)


def _add_dry_run(parser: CommandParser) -> None:
    parser.add_argument(
        "--dry-run", action="store_true", help="only say what would be done"
    )


def _positive(text: str) -> int:
    if not text.isdecimal() or not text.strip("0"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 on")
    if len(text.lstrip("0")) > _MOST_DIGITS:
        raise argparse.ArgumentTypeError(f"{text[:20]!r} is too large")
    return int(text)


def _duration(text: str) -> float:
    try:
        return seconds(durations.parse(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


# -- values and words ----------------------------------------------------------------


def _state(text: str | None) -> str | None:
    if text is None:
        return None
    name = text.upper()
    if name not in State.__members__:
        hint = did_you_mean(name, State.__members__)
        states = ", ".join(State)
        raise CommandError(f"there is no state {text!r}.{hint} The states: {states}.")
    return name


def _ids(texts: Iterable[str]) -> list[str]:
    """Return ids in their canonical form, each once; CommandError for what is none."""
    ids = {text: canonical(text) for text in texts}
    wrong = [text for text, key in ids.items() if key is None]
    if wrong:
        raise CommandError(
            f"{wrong[0]!r} is no id of a task; an id looks like "
            "01981a2b-3c4d-7e5f-8a9b-0c1d2e3f4a5b"
        )
    return list(dict.fromkeys(key for key in ids.values() if key is not None))


def _why_failed(alias: str, error: Exception) -> str:
    if reason := explaining.why_not_migrated(alias):
        return reason
    words = rendering.one_line(str(error) or type(error).__name__, MOST_NOTED)
    return f"the database {alias!r} did not do it: {words}"


def _hint_about_task(options: dict[str, Any]) -> str:
    hint = explaining.hint_about_task(options["task"], options["database"])
    return f" {rendering.one_line(hint.strip(), MOST_NOTED)}" if hint else ""


def _hints(options: dict[str, Any]) -> str:
    """Return what to write instead of filters that match no dead letter."""
    hint = explaining.hint_about_error(options["error"], options["database"])
    return _hint_about_task(options) + rendering.one_line(hint, MOST_NOTED)


def _tasks(count: int) -> str:
    return f"{count} dead letter" if count == 1 else f"{count} dead letters"


def _lines(ids: Sequence[str]) -> str:
    return "\n".join(f"{each}  retried" for each in ids)


def _complaint(words: str, ids: Sequence[str]) -> str:
    return f"{words}: {', '.join(ids[:10])}" + (" ..." if len(ids) > 10 else "")


_REVOKED = {
    "revoked": "revoked",
    "requested": "running, is being stopped",
    "finished": "finished before",
    "not found": "not found",
}
_COMMANDS: dict[str, tuple[str, Any, Any]] = {
    "status": (
        "how much there is to do, and who does it",
        _add_nothing,
        Command.do_status,
    ),
    "list": ("tasks, the newest first", _add_list, Command.do_list),
    "show": ("everything about one task", _add_id, Command.do_show),
    "retry": ("put dead letters back to work", _add_retry, Command.do_retry),
    "revoke": ("stop tasks, waiting or running", _add_ids, Command.do_revoke),
    "prune": ("delete what is past its retention", _add_prune, Command.do_prune),
}
