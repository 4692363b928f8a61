"""Names are compared byte by byte on MySQL and MariaDB, as everywhere else.

Their usual collations find ``Mail`` and ``mail`` equal: a worker of one queue would
take the tasks of the other.
"""

from __future__ import annotations

from typing import Any

from django.db import migrations

from django_jobs.migrations._beside_workers import BesideWorkers

#: Columns that hold names of queues and tasks.
NAMES = {
    "Task": ("name", "queue_name"),
    "Result": ("name", "queue_name"),
    "DeadLetter": ("name", "queue_name"),
    "Rollup": ("name", "queue_name"),
    "Queue": ("name",),
    "Schedule": ("name", "task", "queue_name"),
}


def compare_bytes(apps: Any, schema_editor: Any) -> None:
    """Give the columns a binary collation, where the server is MySQL or MariaDB."""
    if schema_editor.connection.vendor != "mysql":
        return
    quote = schema_editor.quote_name
    for model_name, field_names in NAMES.items():
        model = apps.get_model("django_jobs", model_name)
        changes = ", ".join(
            f"MODIFY {quote(field.column)} varchar({field.max_length}) "
            "CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL"
            for field in map(model._meta.get_field, field_names)
        )
        schema_editor.execute(f"ALTER TABLE {quote(model._meta.db_table)} {changes}")


class Migration(migrations.Migration):
    # MySQL cannot roll a change of tables back.
    atomic = False
    dependencies = [("django_jobs", "0002_postgresql_storage")]

    operations = [
        BesideWorkers(),
        migrations.RunPython(compare_bytes, migrations.RunPython.noop, elidable=False),
        BesideWorkers(),
    ]
