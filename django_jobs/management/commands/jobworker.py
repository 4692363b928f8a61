"""``manage.py jobworker``: parse the options, say what starts, run the worker."""

from __future__ import annotations

import argparse
import logging
import math
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connections

from django_jobs import __version__
from django_jobs.conf import conf
from django_jobs.management.explaining import why_not_migrated
from django_jobs.options import did_you_mean
from django_jobs.store import get_store
from django_jobs.worker import logs, pool, terminal
from django_jobs.worker.options import (
    WorkerOptions,
    check_name,
    kind_of,
    parse_queues,
    usable_cores,
)
from django_jobs.worker.reload import Reloader, is_trial
from django_jobs.worker.supervisor import Supervisor

_MEGABYTE = 1024 * 1024
_STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_KILLING = (signal.SIGQUIT,)


class Command(BaseCommand):
    help = "Run a worker: it takes tasks from the database and runs them."

    def add_arguments(self, parser: CommandParser) -> None:
        _add_queue_options(parser)
        _add_size_options(parser)
        _add_life_options(parser)

    def execute(self, *args: Any, **options: Any) -> str | None:
        # Before the system checks: what they print shall have the format, too.
        with terminal.patient_streams():
            logs.configure(options["log_format"], _log_level(options))
            with logs.everything_in(options["log_format"]):
                if options["log_format"] == "json":
                    options["stderr"] = options.get("stderr") or sys.stderr
                return super().execute(*args, **options)

    def handle(self, *args: Any, **options: Any) -> None:
        given = self._options(options)
        _refuse_memory(given.database)
        _refuse_without_tables(given.database)
        if is_trial():
            return
        pool.start_fork_server()
        if given.log_format == "text" and sys.stdout is not None:
            self._show_banner(given)
        supervisor = Supervisor(given)
        reloader = Reloader(supervisor.stop)
        if options["reload"]:
            reloader.start()
        with (
            _signals_to(_STOPPING, reloader.cancel, supervisor.stop),
            _signals_to(_KILLING, reloader.cancel, supervisor.kill),
        ):
            supervisor.run()
        if reloader.has_changed:
            with _signals_to((*_STOPPING, *_KILLING), reloader.cancel):
                reloader.restart()
        elif getattr(supervisor, "has_failed", False):
            raise CommandError("the worker gave up: see the log for the reason")

    def _show_banner(self, options: WorkerOptions) -> None:
        title = f"django_jobs {__version__} worker {options.name}"
        # Without the line's end, which would hand the colour on to the next line.
        self.stdout.write(self._showable(title), self.style.SUCCESS, ending="")
        self.stdout.write("\n" + self._showable(_banner(options)))
        self.stdout.flush()

    def _showable(self, text: str) -> str:
        """Escape what the terminal has no characters for, as the log does."""
        encoding = getattr(self.stdout, "encoding", None) or "utf-8"
        return text.encode(encoding, "backslashreplace").decode(encoding)

    def _options(self, options: dict[str, Any]) -> WorkerOptions:
        try:
            queues, weights = parse_queues(options["queues"])
            exclude, misplaced = parse_queues(options["exclude_queues"])
            named = {"name": check_name(options["name"])} if options["name"] else {}
        except ValueError as error:
            raise CommandError(str(error)) from error
        if misplaced:
            raise CommandError("--exclude-queues takes names without weights")
        if queues and exclude:
            raise CommandError("give --queues or --exclude-queues, not both")
        max_memory = options["max_memory"]
        return WorkerOptions(
            database=_database(options),
            queues=queues,
            weights=weights,
            exclude=exclude,
            processes=options["processes"],
            threads=options["threads"],
            coroutines=options["coroutines"],
            is_burst=options["burst"],
            max_tasks=options["max_tasks"],
            recycle_after=options["recycle_after"],
            max_memory=max_memory and max_memory * _MEGABYTE,
            shutdown_timeout=_shutdown_timeout(options),
            log_format=options["log_format"],
            log_level=_log_level(options),
            **named,
        )


def _add_queue_options(parser: CommandParser) -> None:
    parser.add_argument(
        "--queues",
        default="",
        metavar="a,b",
        help="only these queues: in strict order (a,b) or weighted (a:6,b:3)",
    )
    parser.add_argument(
        "--exclude-queues", default="", metavar="c", help="all queues but these"
    )
    parser.add_argument("--database", help="alias of the queue's database")
    parser.add_argument(
        "--backend", help="take the database from this alias of the TASKS setting"
    )


def _add_size_options(parser: CommandParser) -> None:
    parser.add_argument(
        "--processes",
        type=_positive,
        default=usable_cores(),
        metavar="N",
        help="child processes (default: the usable cores, %(default)s)",
    )
    parser.add_argument(
        "--threads",
        type=_positive,
        default=1,
        metavar="N",
        help="sync tasks at a time per process (default: %(default)s)",
    )
    parser.add_argument(
        "--coroutines",
        type=_positive,
        default=100,
        metavar="N",
        help="async tasks at a time per process (default: %(default)s)",
    )
    parser.add_argument(
        "--recycle-after",
        type=_positive,
        metavar="N",
        help="replace a process after N tasks",
    )
    parser.add_argument(
        "--max-memory",
        type=_positive,
        metavar="MB",
        help="replace a process that is larger after a task",
    )


def _add_life_options(parser: CommandParser) -> None:
    parser.add_argument(
        "--burst", action="store_true", help="run all that is due, then exit"
    )
    parser.add_argument(
        "--max-tasks", type=_positive, metavar="N", help="exit after N tasks"
    )
    parser.add_argument(
        "--shutdown-timeout",
        type=_seconds,
        metavar="S",
        help="seconds that running tasks get when the worker stops",
    )
    parser.add_argument("--name", metavar="LABEL", help="name shown for this worker")
    parser.add_argument(
        "--reload", action="store_true", help="restart when the code changes"
    )
    parser.add_argument(
        "--log-format",
        choices=("text", "json"),
        default="text",
        help="of the lines on standard error; --verbosity 2 adds one per task",
    )


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"must be 1 or more, not {text!r}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not math.isfinite(seconds):
        raise argparse.ArgumentTypeError(f"must be a number of seconds, not {text!r}")
    if seconds < 0:
        raise argparse.ArgumentTypeError(f"must not be negative: {text!r}")
    return seconds


def _database(options: dict[str, Any]) -> str:
    alias = options["database"]
    if alias and options["backend"]:
        raise CommandError("give --database or --backend, not both")
    if options["backend"]:
        alias = _database_of_backend(options["backend"])
    if alias is not None and alias not in connections:
        hint = did_you_mean(alias, list(connections))
        raise CommandError(f"there is no database {alias!r} in DATABASES.{hint}")
    return get_store(alias).alias


def _refuse_memory(alias: str) -> None:
    connection: Any = connections[alias]
    if connection.vendor == "sqlite" and connection.is_in_memory_db():
        raise CommandError(
            f"the database {alias!r} is in memory, where no other process sees it: "
            "give 'NAME' (for tests, that of 'TEST') the path of a file"
        )


def _refuse_without_tables(alias: str) -> None:
    # A database that is away for now is no reason: the worker waits for it.
    try:
        if reason := why_not_migrated(alias):
            raise CommandError(reason)
    finally:
        connections[alias].close()


def _database_of_backend(name: str) -> str | None:
    backends = getattr(settings, "TASKS", {})
    if name not in backends:
        hint = did_you_mean(name, backends)
        raise CommandError(f"there is no {name!r} in TASKS.{hint}")
    alias: str | None = backends[name].get("OPTIONS", {}).get("DATABASE")
    return alias


def _log_level(options: dict[str, Any]) -> int:
    """Return the level of the line per task."""
    return logging.INFO if options["verbosity"] > 1 else logging.WARNING


def _shutdown_timeout(options: dict[str, Any]) -> float:
    given: float | None = options["shutdown_timeout"]
    return conf().SHUTDOWN_TIMEOUT if given is None else given


def _banner(options: WorkerOptions) -> str:
    database = options.database
    limits = (
        f"{_count(options.processes, 'process', 'processes')} x"
        f" ({_count(options.threads, 'thread', 'threads')}"
        f" + {_count(options.coroutines, 'coroutine', 'coroutines')})"
    )
    return "\n".join(
        [
            f"  database     {database} ({kind_of(database)})",
            f"  queues       {options.describe_queues()}",
            f"  concurrency  {limits}",
            f"  pid          {os.getpid()}, stop with Ctrl-C or SIGTERM",
        ]
    )


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


@contextmanager
def _signals_to(
    numbers: Sequence[signal.Signals], *calls: Callable[[str], None]
) -> Iterator[None]:
    """Have these signals call these; who called us gets them back."""

    def on_signal(number: int, frame: FrameType | None) -> None:
        for call in calls:
            call(signal.Signals(number).name)

    before = {number: signal.signal(number, on_signal) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
