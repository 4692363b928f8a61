"""``JobsBackend``: Django's own task decorator on our queue.

Imported only where it is configured::

    TASKS = {"default": {"BACKEND": "django_jobs.backend.JobsBackend", "QUEUES": []}}

It serves ``django.tasks`` of Django 6, and its backport ``django_tasks`` on Django 5.2.
No module of it loads models: Django makes the backend when the first task is declared,
which may be before the apps are ready.
"""

from __future__ import annotations

from django_jobs.backend.adapter import JobsBackend
from django_jobs.backend.contexts import JobsTaskContext
from django_jobs.backend.results import JobsTaskResult
from django_jobs.backend.tasks import JobsTask

__all__ = ["JobsBackend", "JobsTask", "JobsTaskContext", "JobsTaskResult"]
