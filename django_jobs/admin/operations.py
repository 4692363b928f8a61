"""Bulk actions that run in the background, and the chores of the workers."""

from __future__ import annotations

from django.contrib import admin
from django.utils.translation import gettext_lazy as _

from django_jobs.admin.base import ReadOnlyAdmin
from django_jobs.admin.rendering import badge, json_block, moment
from django_jobs.models import Maintenance, Operation


@admin.register(Operation)
class OperationAdmin(ReadOnlyAdmin):
    in_index = False
    is_unused = True
    list_display = (
        "kind",
        "state_shown",
        "done_of_total",
        "skipped",
        "reason",
        "created",
        "finished",
    )
    fieldsets = (
        (None, {"fields": ("kind", "id", "state_shown", "reason", "user_id")}),
        (
            _("Rows"),
            {"fields": ("filter_shown", "cutoff_id", "done_of_total", "skipped")},
        ),
        (_("Times"), {"fields": ("created", "finished")}),
    )

    @admin.display(description=_("state"))
    def state_shown(self, operation: Operation) -> str:
        return badge(operation.state)

    @admin.display(description=_("done"))
    def done_of_total(self, operation: Operation) -> str:
        total = "?" if operation.total is None else operation.total
        return f"{operation.done} / {total}"

    @admin.display(description=_("filter"))
    def filter_shown(self, operation: Operation) -> str:
        return json_block(operation.filter)

    @admin.display(description=_("created"))
    def created(self, operation: Operation) -> str:
        return moment(operation.created_at)

    @admin.display(description=_("finished"))
    def finished(self, operation: Operation) -> str:
        return moment(operation.finished_at)


@admin.register(Maintenance)
class MaintenanceAdmin(ReadOnlyAdmin):
    in_index = False
    ordering = ("name",)
    list_display = ("name", "last_run")
    fields = ("name", "last_run")

    @admin.display(description=_("last done"))
    def last_run(self, chore: Maintenance) -> str:
        return moment(chore.last_run_at)
