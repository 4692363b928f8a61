"""Filters whose choices come from code, small tables and the newest rows."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from enum import StrEnum
from typing import Any, ClassVar

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from django_jobs.admin.lists import oldest_in_window
from django_jobs.conf import conf
from django_jobs.definitions import all_definitions
from django_jobs.models import Queue
from django_jobs.states import LIVE_STATES, RESULT_STATES, Reason, State, Verdict
from django_jobs.store import get_store

#: Queues that a filter offers from one table.
_MOST_OFFERED = 500


class ColumnFilter(admin.SimpleListFilter):
    """Rows that have one value in a column."""

    column: ClassVar[str]
    values: ClassVar[Iterable[StrEnum]] = ()
    #: Values whose rows an index finds.
    indexed: ClassVar[Collection[str]] = ()

    @property
    def is_indexed(self) -> bool:
        """Does an index find the rows of the value that is chosen?"""
        return self.value() in self.indexed

    def lookups(
        self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]
    ) -> list[tuple[Any, Any]]:
        return [(str(each), str(each)) for each in self.values]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        value = self.value()
        return queryset if value is None else queryset.filter(**{self.column: value})


class TaskStateFilter(ColumnFilter):
    title = _("state")
    parameter_name = column = "state"
    values = sorted(LIVE_STATES)
    indexed = (State.READY, State.SCHEDULED, State.RUNNING)


class ResultStateFilter(ColumnFilter):
    title = _("state")
    parameter_name = column = "state"
    values = sorted(RESULT_STATES)


class ReasonFilter(ColumnFilter):
    title = _("reason")
    parameter_name = column = "reason"
    values = tuple(Reason)


class AttemptVerdictFilter(ColumnFilter):
    title = _("verdict")
    parameter_name = column = "verdict"
    values = (Verdict.RETRY, Verdict.FAILED, Verdict.CRASHED, Verdict.INTERRUPTED)


class QueueFilter(ColumnFilter):
    """The queues of the settings and of the registered tasks, and those with rows.

    The rows are those in which the filter would search.
    """

    title = _("queue")
    parameter_name = "queue"
    column = "queue_name"

    def lookups(
        self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]
    ) -> list[tuple[Any, Any]]:
        names = {conf().DEFAULT_QUEUE, *conf().QUEUES}
        names.update(each.queue_name for each in all_definitions())
        rows = Queue.objects.using(get_store().alias).values_list("name", flat=True)
        names.update(rows[:_MOST_OFFERED])
        names.update(_queues_with_rows(model_admin.get_queryset(request)))
        return [(name, name) for name in sorted(names)]


def _queues_with_rows(queryset: QuerySet[Any]) -> QuerySet[Any]:
    oldest = oldest_in_window(queryset)
    rows = queryset.filter(pk__gte=oldest) if oldest else queryset
    names = rows.order_by().values_list("queue_name", flat=True)
    return names.distinct()[:_MOST_OFFERED]


class TaskNameFilter(ColumnFilter):
    """The tasks that are registered here."""

    title = _("task")
    parameter_name = "task"
    column = "name"

    def lookups(
        self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]
    ) -> list[tuple[Any, Any]]:
        return [(each.name, each.name) for each in all_definitions()]
