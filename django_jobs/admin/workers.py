"""Workers that are registered, alive or not."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.utils.html import format_html
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from django_jobs.admin.base import ReadOnlyAdmin
from django_jobs.admin.rendering import badge, between, moment
from django_jobs.models import Worker
from django_jobs.store import get_store
from django_jobs.worker.heartbeat import is_overdue


@admin.register(Worker)
class WorkerAdmin(ReadOnlyAdmin):
    list_display = (
        "name",
        "state_shown",
        "host",
        "pid",
        "queues_shown",
        "tasks",
        "size",
        "heard",
        "up",
    )
    fieldsets = (
        (
            None,
            {
                "fields": (
                    "name",
                    "id",
                    "state_shown",
                    "host",
                    "pid",
                    "version",
                )
            },
        ),
        (_("Work"), {"fields": ("queues_shown", "tasks", "size")}),
        (_("Times"), {"fields": ("started", "up", "seen", "heard", "lease_ends")}),
    )

    def prepare(self, rows: list[Any]) -> None:
        # Whether a worker is alive is for the clock of the database to say.
        now = get_store().now() if rows else None
        for row in rows:
            row.now = now

    @admin.display(description=_("state"))
    def state_shown(self, worker: Any) -> str:
        if worker.expires_at <= worker.now:
            return badge("lost")
        state = badge(worker.state)
        if not is_overdue(worker.seen_at, worker.now):
            return state
        return format_html("{} {}", state, _("(gone?)"))

    @admin.display(description=_("queues"))
    def queues_shown(self, worker: Worker) -> str:
        return worker.queues or str(_("all"))

    @admin.display(description=_("running tasks"))
    def tasks(self, worker: Worker) -> int:
        return worker.running

    @admin.display(description=_("size"))
    def size(self, worker: Worker) -> str:
        threads = ngettext("%d thread", "%d threads", worker.threads)
        coroutines = ngettext("%d coroutine", "%d coroutines", worker.coroutines)
        return f"{worker.processes} x ({threads} + {coroutines})" % (
            worker.threads,
            worker.coroutines,
        )

    @admin.display(description=_("last heartbeat"))
    def heard(self, worker: Any) -> str:
        return _("%s ago") % between(worker.seen_at, worker.now)

    @admin.display(description=_("up for"))
    def up(self, worker: Any) -> str:
        return between(worker.started_at, worker.now)

    @admin.display(description=_("started"))
    def started(self, worker: Worker) -> str:
        return moment(worker.started_at)

    @admin.display(description=_("heartbeat"))
    def seen(self, worker: Worker) -> str:
        return moment(worker.seen_at)

    @admin.display(description=_("lease ends"))
    def lease_ends(self, worker: Worker) -> str:
        return moment(worker.expires_at)
