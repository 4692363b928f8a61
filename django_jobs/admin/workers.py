"""Workers that are registered, alive or not."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.utils.translation import gettext_lazy as _

from django_jobs.admin.base import ReadOnlyAdmin
from django_jobs.admin.rendering import (
    EMPTY,
    badge,
    between,
    duration,
    json_block,
    moment,
)
from django_jobs.models import Worker
from django_jobs.store import get_store

_MEGABYTE = 1024 * 1024


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
        "memory",
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
                    "release",
                )
            },
        ),
        (
            _("Work"),
            {
                "fields": (
                    "queues_shown",
                    "tasks",
                    "size",
                    "memory",
                    "cpu",
                    "busy_with",
                    "requests",
                )
            },
        ),
        (_("Times"), {"fields": ("started", "up", "seen", "heard", "lease_ends")}),
    )

    def prepare(self, rows: list[Any]) -> None:
        # Whether a worker is alive is for the clock of the database to say.
        now = get_store().now() if rows else None
        for row in rows:
            row.now = now

    @admin.display(description=_("state"))
    def state_shown(self, worker: Any) -> str:
        return badge("lost" if worker.expires_at <= worker.now else worker.state)

    @admin.display(description=_("queues"))
    def queues_shown(self, worker: Worker) -> str:
        return worker.queues or str(_("all"))

    @admin.display(description=_("running tasks"))
    def tasks(self, worker: Worker) -> int:
        return worker.running

    @admin.display(description=_("size"))
    def size(self, worker: Worker) -> str:
        return _(
            "%(processes)d x (%(threads)d threads + %(coroutines)d coroutines)"
        ) % {
            "processes": worker.processes,
            "threads": worker.threads,
            "coroutines": worker.coroutines,
        }

    @admin.display(description=_("memory"))
    def memory(self, worker: Worker) -> str:
        if worker.memory_bytes is None:
            return EMPTY
        return f"{worker.memory_bytes / _MEGABYTE:,.0f} MB"

    @admin.display(description=_("CPU time"))
    def cpu(self, worker: Worker) -> str:
        return duration(worker.cpu_seconds)

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

    @admin.display(description=_("busy with"))
    def busy_with(self, worker: Worker) -> str:
        return json_block(worker.current)

    @admin.display(description=_("requests to it"))
    def requests(self, worker: Worker) -> str:
        return json_block(worker.commands)
