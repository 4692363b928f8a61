"""Tasks that are done."""

from __future__ import annotations

from django.contrib import admin
from django.utils.html import format_html
from django.utils.translation import gettext_lazy as _

from django_jobs.admin import words
from django_jobs.admin.filters import QueueFilter, ResultStateFilter, TaskNameFilter
from django_jobs.admin.rendering import badge, block, json_block
from django_jobs.admin.task_tables import ARGUMENTS, LISTED, TaskTableAdmin
from django_jobs.masking import masked_value
from django_jobs.models import Result


@admin.register(Result)
class ResultAdmin(TaskTableAdmin):
    list_display = (
        "task",
        "state_shown",
        "arguments",
        "queue",
        "attempts",
        "ended",
    )
    list_only = (*LISTED, "state", "last_attempted_at", "finished_at")
    list_filter = (ResultStateFilter, QueueFilter, TaskNameFilter)
    fieldsets = (
        (
            None,
            {
                "fields": (
                    "name",
                    "id",
                    "state_in_words",
                    "value",
                    "queue_name",
                    "priority_shown",
                    "attempts_in_words",
                    "worker_id",
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
                    "waited",
                    "finished",
                    "took",
                    "kept_until",
                )
            },
        ),
        ARGUMENTS,
        (_("Log"), {"fields": ("log_shown",)}),
    )

    @admin.display(description=_("state"))
    def state_shown(self, result: Result) -> str:
        return badge(result.state)

    @admin.display(description=_("state"))
    def state_in_words(self, result: Result) -> str:
        return words.in_words(result.state)

    @admin.display(description=_("finished"))
    def ended(self, result: Result) -> str:
        if result.last_attempted_at is None:
            return self.finished(result)
        words = _("took %s") % self.took(result)
        return format_html("{}<small>{}</small>", self.finished(result), words)

    @admin.display(description=_("return value"))
    def value(self, result: Result) -> str:
        if result.return_value is None:
            return str(_("none is stored"))
        return json_block(masked_value(result.name, result.return_value))

    @admin.display(description=_("log"))
    def log_shown(self, result: Result) -> str:
        return block(result.log)
