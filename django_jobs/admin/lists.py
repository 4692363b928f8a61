"""Lists whose cost does not grow with the table."""

from __future__ import annotations

from typing import Any

from django.contrib.admin.views.main import ChangeList
from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.functional import cached_property

#: Rows that are counted and can be paged through.
MOST_COUNTED = 10_000
#: Rows, the newest first, among which a filter without an index searches.
WINDOW = 100_000


def oldest_in_window(queryset: QuerySet[Any]) -> Any:
    """Return the key of the oldest row to search among, None to search all."""
    keys = queryset.order_by("-pk").values_list("pk", flat=True)
    return next(iter(keys[WINDOW : WINDOW + 1]), None)


class BoundedPaginator(Paginator):  # type: ignore[type-arg]
    """A paginator that stops counting at a ceiling."""

    @cached_property
    def count_up_to_one_more(self) -> int:
        queryset: Any = self.object_list
        rows = queryset.order_by().values("pk")
        return int(rows[: MOST_COUNTED + 1].count())

    @cached_property
    def count(self) -> int:
        return min(self.count_up_to_one_more, MOST_COUNTED)

    @property
    def has_more(self) -> bool:
        return self.count_up_to_one_more > MOST_COUNTED


class LightChangeList(ChangeList):
    """A list that loads the columns it shows, from a part of the table if need be."""

    #: Said below the list.
    most_counted = MOST_COUNTED
    window = WINDOW
    is_windowed = False

    def get_queryset(
        self, request: HttpRequest, exclude_parameters: Any = None
    ) -> QuerySet[Any]:
        queryset = super().get_queryset(request, exclude_parameters)
        oldest = self._must_be_windowed() and oldest_in_window(
            self._screen.get_queryset(request)
        )
        if oldest:
            self.is_windowed = True
            queryset = queryset.filter(pk__gte=oldest)
        shown: QuerySet[Any] = self._screen.get_list_queryset(queryset)
        return shown

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        if not self.query and not self.has_active_filters:
            # All are shown already: nothing for a link to "show all".
            self.full_result_count = self.result_count
        self.has_more = self.paginator.has_more
        self.result_list = list(self.result_list)
        self._screen.prepare(self.result_list)

    @property
    def _screen(self) -> Any:
        """The ``ReadOnlyAdmin`` of the list."""
        return self.model_admin

    def _must_be_windowed(self) -> bool:
        filters: list[Any] = self.filter_specs
        return self._screen.is_large and any(
            each.value() is not None and not each.is_indexed for each in filters
        )
