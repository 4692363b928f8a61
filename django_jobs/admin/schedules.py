"""Rules that enqueue tasks again and again."""

from __future__ import annotations

from django.contrib import admin
from django.utils.translation import gettext_lazy as _

from django_jobs.admin.base import ReadOnlyAdmin
from django_jobs.admin.rendering import (
    EMPTY,
    badge,
    block,
    dotted,
    duration,
    json_block,
    moment,
)
from django_jobs.admin.whereabouts import link
from django_jobs.masking import masked_arguments
from django_jobs.models import Schedule


@admin.register(Schedule)
class ScheduleAdmin(ReadOnlyAdmin):
    is_unused = True
    ordering = ("name",)
    list_display = (
        "name",
        "state_shown",
        "task_shown",
        "rule",
        "next_run",
        "last_run",
        "runs",
    )
    fieldsets = (
        (None, {"fields": ("name", "description", "state_shown", "pause_reason")}),
        (
            _("Task"),
            {"fields": ("task", "queue_name", "priority", "positional", "by_name")},
        ),
        (
            _("Rule"),
            {
                "fields": (
                    "rule",
                    "timezone",
                    "jitter_shown",
                    "starts",
                    "ends",
                    "max_runs",
                    "missed",
                    "missed_limit",
                    "overlap",
                    "is_from_code",
                )
            },
        ),
        (
            _("Runs"),
            {
                "fields": (
                    "next_run",
                    "last_run",
                    "last_task",
                    "run_count",
                    "failures",
                    "error_shown",
                )
            },
        ),
    )

    @admin.display(description=_("state"))
    def state_shown(self, schedule: Schedule) -> str:
        return badge("enabled" if schedule.is_enabled else "paused")

    @admin.display(description=_("task"))
    def task_shown(self, schedule: Schedule) -> str:
        return dotted(schedule.task)

    @admin.display(description=_("rule"))
    def rule(self, schedule: Schedule) -> str:
        if schedule.kind == Schedule.Kind.CRON:
            return schedule.cron
        if schedule.kind == Schedule.Kind.INTERVAL:
            return _("every %s") % duration(schedule.interval)
        return moment(schedule.clocked_at)

    @admin.display(description=_("next run"))
    def next_run(self, schedule: Schedule) -> str:
        return moment(schedule.next_run_at)

    @admin.display(description=_("last run"))
    def last_run(self, schedule: Schedule) -> str:
        return moment(schedule.last_run_at)

    @admin.display(description=_("runs"))
    def runs(self, schedule: Schedule) -> str:
        if not schedule.failures:
            return str(schedule.run_count)
        return _("%(runs)d, %(failures)d failed") % {
            "runs": schedule.run_count,
            "failures": schedule.failures,
        }

    @admin.display(description=_("last task"))
    def last_task(self, schedule: Schedule) -> str:
        key = schedule.last_task_id
        return link(key, str(key), self.admin_site.name)

    @admin.display(description=_("starts"))
    def starts(self, schedule: Schedule) -> str:
        return moment(schedule.starts_at)

    @admin.display(description=_("ends"))
    def ends(self, schedule: Schedule) -> str:
        return moment(schedule.ends_at)

    @admin.display(description=_("jitter"))
    def jitter_shown(self, schedule: Schedule) -> str:
        return duration(schedule.jitter) if schedule.jitter else EMPTY

    @admin.display(description=_("error"))
    def error_shown(self, schedule: Schedule) -> str:
        return block(schedule.error)

    @admin.display(description=_("positional"))
    def positional(self, schedule: Schedule) -> str:
        return json_block(_arguments(schedule)[0])

    @admin.display(description=_("by name"))
    def by_name(self, schedule: Schedule) -> str:
        return json_block(_arguments(schedule)[1])


def _arguments(schedule: Schedule) -> tuple[str, str]:
    return masked_arguments(schedule.task, schedule.args, schedule.kwargs)
