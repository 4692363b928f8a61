"""What the screens of the three tables of tasks share."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.html import format_html
from django.utils.translation import gettext_lazy as _

from django_jobs.admin import history, whereabouts
from django_jobs.admin.base import ReadOnlyAdmin
from django_jobs.admin.rendering import (
    between,
    brief,
    dotted,
    duration,
    json_block,
    moment,
)
from django_jobs.ids import canonical
from django_jobs.masking import masked_arguments
from django_jobs.models import TaskFields
from django_jobs.states import State

#: Columns that every list of tasks loads.
LISTED = (
    "id",
    "name",
    "summary",
    "queue_name",
    "order_key",
    "attempt",
    "crashes",
    "max_attempts",
)
ARGUMENTS: tuple[Any, Any] = (
    _("Arguments"),
    {"fields": ("positional", "by_name", "data", "context")},
)


class TaskTableAdmin(ReadOnlyAdmin):
    """Tasks of one of the three tables; an id leads to the table where it is now."""

    is_large = True
    list_display_links = ("task",)
    search_fields = ("pk",)
    search_help_text = _("The whole id of a task; it opens the task's page.")

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        page = self._page_of(request, request.GET.get("q", "").strip())
        if page is not None:
            return HttpResponseRedirect(page)
        return super().changelist_view(request, extra_context)

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        page = self._page_of(request, object_id)
        if page is not None and page != request.path:
            return HttpResponseRedirect(page)
        return super().change_view(request, object_id, form_url, extra_context)

    def _page_of(self, request: HttpRequest, text: str) -> str | None:
        if request.method != "GET" or not self.has_view_permission(request):
            return None
        key = canonical(text) if text else None
        return key and whereabouts.find_page(key, self.admin_site.name)

    def get_search_results(
        self, request: HttpRequest, queryset: Any, search_term: str
    ) -> tuple[Any, bool]:
        # An id that exists has opened its page, so there is nothing to find here.
        return (queryset.none() if search_term.strip() else queryset), False

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        task = context.get("original")
        if task is not None and request.user.has_perm("django_jobs.view_attempt"):
            context["history"] = history.of_task(task.pk)
        return super().render_change_form(request, context, *args, **kwargs)

    @admin.display(description=_("task"))
    def task(self, task: TaskFields) -> str:
        return dotted(task.name)

    @admin.display(description=_("queue"))
    def queue(self, task: TaskFields) -> str:
        if not task.priority:
            return brief(task.queue_name)
        words = _("priority %d") % task.priority
        return format_html("{}<small>{}</small>", brief(task.queue_name), words)

    @admin.display(description=_("arguments"))
    def arguments(self, task: TaskFields) -> str:
        return brief(task.summary)

    @admin.display(description=_("priority"))
    def priority_shown(self, task: TaskFields) -> int:
        return task.priority

    @admin.display(description=_("attempts"))
    def attempts(self, task: TaskFields) -> str:
        return f"{task.attempt - task.crashes} / {task.max_attempts}"

    @admin.display(description=_("attempts"))
    def attempts_in_words(self, task: TaskFields) -> str:
        words = _("%(attempt)d of at most %(most)d") % {
            "attempt": task.attempt - task.crashes,
            "most": task.max_attempts,
        }
        if task.crashes:
            words += _(", besides %d that crashed") % task.crashes
        return words

    @admin.display(description=_("time limit"))
    def limit(self, task: TaskFields) -> str:
        if task.time_limit is None:
            return str(_("as the task declares"))
        return duration(task.time_limit)

    @admin.display(description=_("enqueued"))
    def enqueued(self, task: TaskFields) -> str:
        return moment(task.enqueued_at)

    @admin.display(description=_("due"))
    def due(self, task: TaskFields) -> str:
        return moment(task.run_after)

    @admin.display(description=_("first started"))
    def started(self, task: TaskFields) -> str:
        started_at = task.started_at
        if started_at is None and getattr(task, "state", None) == State.RUNNING:
            started_at = task.last_attempted_at  # the first run, under way
        return moment(started_at)

    @admin.display(description=_("last started"))
    def last_started(self, task: TaskFields) -> str:
        return moment(task.last_attempted_at)

    @admin.display(description=_("finished"))
    def finished(self, task: Any) -> str:
        return moment(task.finished_at)

    @admin.display(description=_("took"))
    def took(self, task: Any) -> str:
        return between(task.last_attempted_at, task.finished_at)

    @admin.display(description=_("waited"))
    def waited(self, task: TaskFields) -> str:
        return between(task.run_after, task.last_attempted_at)

    @admin.display(description=_("kept until"))
    def kept_until(self, task: Any) -> str:
        return moment(task.prune_at) if task.prune_at else str(_("for ever"))

    @admin.display(description=_("positional"))
    def positional(self, task: TaskFields) -> str:
        return json_block(masked_arguments(task.name, task.args, task.kwargs)[0])

    @admin.display(description=_("by name"))
    def by_name(self, task: TaskFields) -> str:
        return json_block(masked_arguments(task.name, task.args, task.kwargs)[1])

    @admin.display(description=_("metadata"))
    def data(self, task: TaskFields) -> str:
        return json_block(task.metadata)

    @admin.display(description=_("headers"))
    def context(self, task: TaskFields) -> str:
        return json_block(task.headers)
