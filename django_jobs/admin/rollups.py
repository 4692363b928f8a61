"""Counts of finished runs per period."""

from __future__ import annotations

from django.contrib import admin
from django.utils.translation import gettext_lazy as _

from django_jobs.admin.base import ReadOnlyAdmin
from django_jobs.admin.rendering import badge, block, dotted, duration, moment
from django_jobs.models import Rollup


@admin.register(Rollup)
class RollupAdmin(ReadOnlyAdmin):
    in_index = False
    is_unused = True
    list_display = (
        "starts",
        "period",
        "queue_name",
        "task",
        "verdict_shown",
        "count",
        "mean_run",
        "mean_wait",
    )
    list_only = (
        "id",
        "starts_at",
        "seconds",
        "queue_name",
        "name",
        "verdict",
        "count",
        "run_seconds",
        "wait_seconds",
    )
    fieldsets = (
        (None, {"fields": ("starts", "period", "queue_name", "name", "verdict_shown")}),
        (
            _("Counts"),
            {
                "fields": (
                    "count",
                    "mean_run",
                    "mean_wait",
                    "run_buckets_shown",
                    "wait_buckets_shown",
                )
            },
        ),
    )

    @admin.display(description=_("from"))
    def starts(self, rollup: Rollup) -> str:
        return moment(rollup.starts_at)

    @admin.display(description=_("task"))
    def task(self, rollup: Rollup) -> str:
        return dotted(rollup.name)

    @admin.display(description=_("period"))
    def period(self, rollup: Rollup) -> str:
        return duration(rollup.seconds)

    @admin.display(description=_("verdict"))
    def verdict_shown(self, rollup: Rollup) -> str:
        return badge(rollup.verdict)

    @admin.display(description=_("mean run"))
    def mean_run(self, rollup: Rollup) -> str:
        return duration(rollup.run_seconds / rollup.count if rollup.count else None)

    @admin.display(description=_("mean wait"))
    def mean_wait(self, rollup: Rollup) -> str:
        return duration(rollup.wait_seconds / rollup.count if rollup.count else None)

    @admin.display(description=_("runs by length"))
    def run_buckets_shown(self, rollup: Rollup) -> str:
        return block(rollup.run_buckets)

    @admin.display(description=_("waits by length"))
    def wait_buckets_shown(self, rollup: Rollup) -> str:
        return block(rollup.wait_buckets)
