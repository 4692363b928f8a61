"""The worker's own log on the terminal, as text or as one JSON object per line."""

from __future__ import annotations

import json
import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from typing import Any, TextIO, cast

from django_jobs.worker.capture import was_not_handled
from django_jobs.worker.streams import LineLogger

logger = logging.getLogger("django_jobs")

#: Logger of the line per task.
TASKS = "django_jobs.task"
#: What stands in the place of standard output and error, when something does.
_lines: list[LineLogger] = []
_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """One object per line, also for a traceback; ``extra`` fields are keys of it.

    The first four keys are always there and always ours. Whatever a record holds, a
    line comes out: an error here would be printed as plain text.
    """

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname,
            "logger": record.name,
            "message": _message(record),
        }
        for name, value in vars(record).items():
            if name not in _PLAIN:
                entry.setdefault(name, value)
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return _dumps(entry)


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:
        return f"{record.msg!r:.1000} % {_text(record.args)}"


def _dumps(entry: dict[str, Any]) -> str:
    try:
        return json.dumps(entry, default=str, allow_nan=False)
    except Exception:
        return json.dumps({name: _plain(value) for name, value in entry.items()})


def _plain(value: object) -> Any:
    """Return a value as JSON has it, else its text."""
    try:
        json.dumps(value, allow_nan=False)
    except Exception:
        return _text(value)
    return value


def _text(value: object) -> str:
    try:
        return value if isinstance(value, str) else repr(value)
    except Exception:
        return f"[{type(value).__name__} that cannot be shown]"


def configure(log_format: str, task_level: int = logging.WARNING) -> None:
    """Send ``django_jobs`` logs to standard error, unless the project says where to.

    ``task_level`` is that of the line per task, whose logger is ``django_jobs.task``.
    With the format "json", all that any logger sends to the terminal is JSON.
    """
    tasks = logging.getLogger(TASKS)
    if tasks.level == logging.NOTSET:
        tasks.setLevel(task_level)
    if log_format == "json":
        _turn_into_json()
    elif not logger.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(
            logging.Formatter("%(asctime)s %(levelname)-7s %(message)s")
        )
        logger.handlers = [handler]
    else:
        return
    logger.propagate = False
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.INFO)


def _turn_into_json() -> None:
    """Have the handlers that write to the terminal write JSON; add what is missing.

    Handlers that go elsewhere, to a file or a service, stay as the project wants them.
    """
    root = logging.getLogger()
    loggers = [root, *root.manager.loggerDict.values()]
    for each in loggers:
        for handler in getattr(each, "handlers", ()):
            if _is_terminal(handler):
                handler.setFormatter(JsonFormatter())
    logger.handlers = [each for each in logger.handlers if not _is_terminal(each)]
    logger.addHandler(_json_handler(logging.NOTSET))
    if not root.handlers:
        # Where nothing is configured, Python prints warnings as plain text.
        last_resort = _json_handler(logging.WARNING)
        last_resort.addFilter(was_not_handled)
        root.addHandler(last_resort)


def _json_handler(level: int) -> logging.Handler:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    handler.setLevel(level)
    return handler


def _is_terminal(handler: logging.Handler) -> bool:
    terminals = (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)
    stream = getattr(handler, "stream", None)
    return stream is not None and any(stream is each for each in terminals)


def everything_in(log_format: str) -> AbstractContextManager[None]:
    """With "json", turn what else is written to the terminal into JSON.

    That is print(), warnings and errors that nobody caught. What programs write that
    a task starts is beyond reach.
    """
    return _everything_as_json() if log_format == "json" else nullcontext()


@contextmanager
def _everything_as_json() -> Iterator[None]:
    before = sys.stdout, sys.stderr, sys.excepthook, threading.excepthook
    out = LineLogger(sys.stdout, "stdout", logging.INFO, JsonFormatter())
    err = LineLogger(sys.stderr, "stderr", logging.WARNING, JsonFormatter())
    sys.stdout, sys.stderr = cast(TextIO, out), cast(TextIO, err)
    _lines[:] = out, err
    sys.excepthook = _log_uncaught
    threading.excepthook = lambda args: _log_uncaught(*args[:3])
    try:
        yield
    finally:
        _lines.clear()
        for stream in (out, err):
            with suppress(Exception):  # nobody reads it any more
                stream.finish_all()
        sys.stdout, sys.stderr, sys.excepthook, threading.excepthook = before


def finish_lines() -> bool:
    """Write what was printed without the end of a line, at the end of an attempt.

    Not what other attempts have printed that run in threads of their own. Returns
    False when somebody has closed a stream; never raises.
    """
    streams: list[Any] = [*_lines]
    streams = streams or [getattr(sys, name, None) for name in ("stdout", "stderr")]
    are_open = True
    for stream in streams:
        try:
            stream.finish() if isinstance(stream, LineLogger) else stream.flush()
        except ValueError:
            are_open = False
        except Exception:  # noqa: S110 - nobody reads it any more
            pass
    return are_open


def _log_uncaught(kind: Any, error: Any, traceback: Any) -> None:
    logger.critical(
        "event=uncaught",
        exc_info=(kind, error, traceback),
        extra={"event": "uncaught"},
    )
