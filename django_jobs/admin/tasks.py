"""Tasks to do and being done."""

from __future__ import annotations

from django.contrib import admin
from django.utils.html import format_html
from django.utils.translation import gettext_lazy as _

from django_jobs.admin import words
from django_jobs.admin.filters import QueueFilter, TaskNameFilter, TaskStateFilter
from django_jobs.admin.rendering import EMPTY, badge, block, moment
from django_jobs.admin.task_tables import ARGUMENTS, LISTED, TaskTableAdmin
from django_jobs.admin.whereabouts import worker_link
from django_jobs.models import Task
from django_jobs.states import State
from django_jobs.texts import progress_in_words, shorten


@admin.register(Task)
class TaskAdmin(TaskTableAdmin):
    list_display = (
        "task",
        "state_shown",
        "arguments",
        "queue",
        "attempts",
        "due",
    )
    list_only = (*LISTED, "state", "run_after", "revoke_requested")
    list_filter = (TaskStateFilter, QueueFilter, TaskNameFilter)
    fieldsets = (
        (
            None,
            {
                "fields": (
                    "name",
                    "id",
                    "state_in_words",
                    "queue_name",
                    "priority_shown",
                    "attempts_in_words",
                    "limit",
                    "worker",
                    "progress_shown",
                )
            },
        ),
        (
            _("Times"),
            {"fields": ("enqueued", "due", "expiry", "started", "last_started")},
        ),
        ARGUMENTS,
    )

    @admin.display(description=_("state"))
    def state_shown(self, task: Task) -> str:
        if not task.revoke_requested:
            return badge(task.state)
        return format_html("{} {}", badge(task.state), _("is being revoked"))

    @admin.display(description=_("state"))
    def state_in_words(self, task: Task) -> str:
        if task.revoke_requested:
            return words.in_words(task.state, words.REVOKING)
        is_again = task.state == State.SCHEDULED and task.last_attempted_at is not None
        return words.in_words(task.state, words.AGAIN if is_again else None)

    @admin.display(description=_("expires"))
    def expiry(self, task: Task) -> str:
        return moment(task.expires)

    @admin.display(description=_("worker"))
    def worker(self, task: Task) -> str:
        if task.worker_id is None:
            return EMPTY
        return worker_link(task.worker_id, str(task.worker_id))

    @admin.display(description=_("progress"))
    def progress_shown(self, task: Task) -> str:
        return (
            EMPTY
            if not task.progress
            else block(shorten(progress_in_words(task.progress), 1000))
        )
