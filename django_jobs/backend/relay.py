"""Django's signals of a run: the backend's class is the sender.

``task_finished`` comes once, when the task has finished; an attempt that another one
follows is told by ``django_jobs.signals.task_finished`` alone.
"""

from __future__ import annotations

from typing import Any

from django_jobs.backend import api
from django_jobs.backend.results import JobsTaskResult
from django_jobs.backend.running import finished_result, running_result
from django_jobs.context import TaskContext
from django_jobs.records import Outcome
from django_jobs.states import Verdict

_FINISHED = {Verdict.SUCCESSFUL, Verdict.FAILED}


class Relay:
    """Tells Django's receivers of the runs of a definition."""

    def started(self, context: TaskContext) -> None:
        _send(api.task_started, running_result(context))

    def finished(self, context: TaskContext, outcome: Outcome) -> None:
        if outcome.verdict in _FINISHED:
            _send(api.task_finished, finished_result(context, outcome))


def _send(signal: Any, result: JobsTaskResult) -> None:
    signal.send_robust(type(result.task.get_backend()), task_result=result)
