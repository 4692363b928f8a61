"""What all screens have in common: read-only, and cheap on tables of any size."""

from __future__ import annotations

from typing import Any, ClassVar

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse

from django_jobs.admin.lists import BoundedPaginator, LightChangeList
from django_jobs.admin.unmigrated import explained
from django_jobs.store import get_store


class ReadOnlyAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """A table to look at; nobody adds, changes or deletes anything."""

    actions = None
    ordering = ("-pk",)
    #: Sorting by any column but the primary key would read the whole table.
    sortable_by = ()
    list_per_page = 50
    list_max_show_all = 0
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    paginator = BoundedPaginator
    change_form_template = "admin/django_jobs/change_form.html"
    #: The columns that a list loads; payloads and tracebacks are not among them.
    list_only: ClassVar[tuple[str, ...]] = ()
    #: Is the table so large that a filter without an index must not read all of it?
    is_large: ClassVar[bool] = False
    #: Is it in the index? A table of the queue's own affairs has only its address.
    in_index: ClassVar[bool] = True
    #: Is it there for later versions, and does this one neither write nor read it?
    is_unused: ClassVar[bool] = False

    class Media:
        css = {"all": ["django_jobs/admin.css"]}

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        # The queue's own database, never a replica: that may lag behind.
        return super().get_queryset(request).using(get_store().alias)

    def get_list_queryset(self, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Return the query of the list with the columns that it shows."""
        return queryset.only(*self.list_only) if self.list_only else queryset

    def prepare(self, rows: list[Any]) -> None:
        """Add to the rows of a list or a page what takes a query of its own."""

    def get_object(
        self, request: HttpRequest, object_id: str, from_field: Any = None
    ) -> Model | None:
        found: Model | None = super().get_object(request, object_id, from_field)
        if found is not None:
            self.prepare([found])
        return found

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> Any:
        return LightChangeList

    def lookup_allowed(
        self, lookup: str, value: str, request: HttpRequest | None = None
    ) -> bool:
        """Allow the filters that are shown, no lookup that a URL makes up."""
        names = {getattr(each, "parameter_name", "") for each in self.list_filter}
        return lookup in names

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        if request.method not in ("GET", "HEAD"):
            raise PermissionDenied
        context = {"is_unused": self.is_unused, **(extra_context or {})}
        return super().changelist_view(request, context)

    def get_urls(self) -> list[Any]:
        urls = super().get_urls()
        for url in urls:
            if url.callback is not None:
                url.callback = explained(url.callback)
        return urls

    def get_model_perms(self, request: HttpRequest) -> dict[str, bool]:
        return super().get_model_perms(request) if self.in_index else {}

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False
