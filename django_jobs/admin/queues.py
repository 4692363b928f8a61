"""What is set for queues: pause and limits."""

from __future__ import annotations

from django.contrib import admin
from django.utils.translation import gettext_lazy as _

from django_jobs.admin.base import ReadOnlyAdmin
from django_jobs.admin.rendering import EMPTY, badge, duration, moment
from django_jobs.models import Queue


@admin.register(Queue)
class QueueAdmin(ReadOnlyAdmin):
    is_unused = True
    ordering = ("name",)
    list_display = ("name", "state_shown", "limit", "rate", "paused", "pause_reason")
    fieldsets = (
        (None, {"fields": ("name", "state_shown", "limit", "rate")}),
        (_("Pause"), {"fields": ("paused", "until", "paused_by", "pause_reason")}),
    )

    @admin.display(description=_("state"))
    def state_shown(self, queue: Queue) -> str:
        return badge("paused" if queue.paused_at else "open")

    @admin.display(description=_("at a time"))
    def limit(self, queue: Queue) -> str:
        if queue.concurrency_limit is None:
            return str(_("no limit"))
        return str(queue.concurrency_limit)

    @admin.display(description=_("rate"))
    def rate(self, queue: Queue) -> str:
        if queue.rate_limit is None or queue.rate_period is None:
            return str(_("no limit"))
        return _("%(count)d in %(period)s") % {
            "count": queue.rate_limit,
            "period": duration(queue.rate_period),
        }

    @admin.display(description=_("paused since"))
    def paused(self, queue: Queue) -> str:
        return moment(queue.paused_at)

    @admin.display(description=_("paused until"))
    def until(self, queue: Queue) -> str:
        if queue.paused_at and not queue.paused_until:
            return str(_("it is resumed"))
        return moment(queue.paused_until) if queue.paused_at else EMPTY
