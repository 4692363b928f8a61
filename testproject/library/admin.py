"""The catalogue in the admin."""

from django.contrib import admin

from .models import SourceFile


@admin.register(SourceFile)
class SourceFileAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = ("path", "task_id")
    search_fields = ("path",)
