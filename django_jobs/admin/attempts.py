"""Attempts that did not succeed."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.db.models.functions import Left
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from django_jobs.admin import whereabouts
from django_jobs.admin.base import ReadOnlyAdmin
from django_jobs.admin.filters import AttemptVerdictFilter
from django_jobs.admin.rendering import (
    badge,
    between,
    block,
    brief,
    dotted,
    error_line,
    moment,
)
from django_jobs.ids import canonical
from django_jobs.models import Attempt


@admin.register(Attempt)
class AttemptAdmin(ReadOnlyAdmin):
    is_large = True
    list_display = (
        "number_shown",
        "task_name",
        "verdict_shown",
        "error",
        "worker",
        "took",
        "finished",
    )
    list_only = (
        "id",
        "task_id",
        "number",
        "verdict",
        "exception_class",
        "worker_name",
        "started_at",
        "finished_at",
    )
    list_filter = (AttemptVerdictFilter,)
    search_fields = ("task_id",)
    search_help_text = _("The whole id of a task; it finds the task's attempts.")
    fieldsets = (
        (
            None,
            {
                "fields": (
                    "task_name",
                    "task_id",
                    "number_shown",
                    "verdict_shown",
                    "worker_name",
                    "worker_id",
                    "release",
                )
            },
        ),
        (_("Times"), {"fields": ("started", "finished", "took", "requeued")}),
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
        (_("Log"), {"fields": ("log_shown",)}),
    )

    def get_list_queryset(self, queryset: QuerySet[Any]) -> QuerySet[Any]:
        start = Left("message", 200)
        return super().get_list_queryset(queryset.annotate(message_start=start))

    def get_search_results(
        self, request: HttpRequest, queryset: Any, search_term: str
    ) -> tuple[Any, bool]:
        if not search_term.strip():
            return queryset, False
        key = canonical(search_term.strip())
        found = queryset.none() if key is None else queryset.filter(task_id=key)
        return found, False

    def prepare(self, rows: list[Any]) -> None:
        names = whereabouts.names_of([row.task_id for row in rows])
        for row in rows:
            row.task = names.get(row.task_id, "")

    @admin.display(description=_("task"))
    def task_name(self, attempt: Any) -> str:
        if not attempt.task:
            return str(attempt.task_id)
        name = dotted(attempt.task)
        return whereabouts.link(attempt.task_id, name, self.admin_site.name)

    @admin.display(description=_("worker"))
    def worker(self, attempt: Attempt) -> str:
        return brief(attempt.worker_name)

    @admin.display(description=_("attempt"))
    def number_shown(self, attempt: Attempt) -> str:
        return str(attempt.number)

    @admin.display(description=_("verdict"))
    def verdict_shown(self, attempt: Attempt) -> str:
        return badge(attempt.verdict)

    @admin.display(description=_("error"))
    def error(self, attempt: Any) -> str:
        return error_line(attempt.exception_class, attempt.message_start)

    @admin.display(description=_("started"))
    def started(self, attempt: Attempt) -> str:
        return moment(attempt.started_at)

    @admin.display(description=_("finished"))
    def finished(self, attempt: Attempt) -> str:
        return moment(attempt.finished_at)

    @admin.display(description=_("took"))
    def took(self, attempt: Attempt) -> str:
        return between(attempt.started_at, attempt.finished_at)

    @admin.display(description=_("put back to work"))
    def requeued(self, attempt: Attempt) -> str:
        return moment(attempt.requeued_at)

    @admin.display(description=_("message"))
    def message_shown(self, attempt: Attempt) -> str:
        return block(attempt.message)

    @admin.display(description=_("traceback"))
    def traceback_shown(self, attempt: Attempt) -> str:
        return block(attempt.traceback)

    @admin.display(description=_("log"))
    def log_shown(self, attempt: Attempt) -> str:
        return block(attempt.log)
