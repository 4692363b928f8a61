"""The worker's own log on the terminal, as text or as one JSON object per line."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

#: Logger of the line per task.
TASKS = "django_jobs.task"
_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """One object per line, also for a traceback; ``extra`` fields are added."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        fields = vars(record).items()
        entry |= {key: value for key, value in fields if key not in _PLAIN}
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


def configure(log_format: str, task_level: int = logging.WARNING) -> None:
    """Send ``django_jobs`` logs to standard error, unless the project says where to.

    ``task_level`` is that of the line per task, whose logger is ``django_jobs.task``.
    """
    logger, tasks = logging.getLogger("django_jobs"), logging.getLogger(TASKS)
    if tasks.level == logging.NOTSET:
        tasks.setLevel(task_level)
    if logger.handlers and log_format == "text":
        return
    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter("%(asctime)s %(levelname)-7s %(message)s")
    handler.setFormatter(JsonFormatter() if log_format == "json" else text)
    logger.handlers = [handler]
    logger.propagate = False
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.INFO)
