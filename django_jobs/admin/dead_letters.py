"""Tasks that failed for good and need a person."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.db.models.functions import Left
from django.utils.html import format_html
from django.utils.translation import gettext_lazy as _

from django_jobs.admin import words
from django_jobs.admin.filters import QueueFilter, ReasonFilter, TaskNameFilter
from django_jobs.admin.rendering import block, error_line
from django_jobs.admin.task_tables import ARGUMENTS, LISTED, TaskTableAdmin
from django_jobs.models import DeadLetter


@admin.register(DeadLetter)
class DeadLetterAdmin(TaskTableAdmin):
    list_display = (
        "task",
        "arguments",
        "error",
        "reason",
        "queue",
        "finished",
    )
    list_only = (*LISTED, "reason", "exception_class", "finished_at")
    list_filter = (ReasonFilter, QueueFilter, TaskNameFilter)
    fieldsets = (
        (
            None,
            {
                "fields": (
                    "name",
                    "id",
                    "state_in_words",
                    "reason",
                    "back_to_work",
                    "queue_name",
                    "priority_shown",
                    "attempts_in_words",
                    "worker_id",
                )
            },
        ),
        (
            _("Error"),
            {
                "fields": (
                    "exception_class",
                    "message_shown",
                    "traceback_shown",
                    "fingerprint",
                )
            },
        ),
        (
            _("Times"),
            {
                "fields": (
                    "enqueued",
                    "due",
                    "started",
                    "last_started",
                    "finished",
                    "took",
                    "kept_until",
                )
            },
        ),
        ARGUMENTS,
    )

    def get_list_queryset(self, queryset: QuerySet[Any]) -> QuerySet[Any]:
        # A message may be long; its start is enough for a list.
        start = Left("message", 200)
        return super().get_list_queryset(queryset.annotate(message_start=start))

    @admin.display(description=_("state"))
    def state_in_words(self, letter: DeadLetter) -> str:
        return words.in_words(letter.state)

    @admin.display(description=_("back to work"))
    def back_to_work(self, letter: DeadLetter) -> str:
        return format_html(
            str(_("{command}, or in code {call}")),
            command=format_html("<code>manage.py jobs retry {}</code>", letter.pk),
            call=format_html(
                '<code>django_jobs.control.requeue(["{}"])</code>', letter.pk
            ),
        )

    @admin.display(description=_("error"))
    def error(self, letter: Any) -> str:
        return error_line(letter.exception_class, letter.message_start)

    @admin.display(description=_("message"))
    def message_shown(self, letter: DeadLetter) -> str:
        return block(letter.message)

    @admin.display(description=_("traceback"))
    def traceback_shown(self, letter: DeadLetter) -> str:
        return block(letter.traceback)
