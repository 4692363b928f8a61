"""PostgreSQL: vacuum the tables that change all the time early and without pauses.

By default a table is vacuumed when a fifth of it is dead. A queue is empty most of the
time, and a claim has to step over every dead entry at the front of its index.
"""

from __future__ import annotations

from django.apps.registry import Apps
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

from django_jobs.migrations._beside_workers import BesideWorkers

#: Vacuum after a fixed number of dead rows, however large the table is.
EARLY: dict[str, float] = {
    "autovacuum_vacuum_scale_factor": 0,
    "autovacuum_vacuum_threshold": 1000,
    "autovacuum_vacuum_cost_delay": 0,
    "autovacuum_vacuum_cost_limit": 2000,
}
#: Tables that are only added to and pruned.
HISTORY: dict[str, float] = {
    "autovacuum_vacuum_scale_factor": 0.02,
    "autovacuum_vacuum_threshold": 1000,
    "autovacuum_vacuum_insert_scale_factor": 0.02,
}
#: Storage parameters per model; the free space keeps a new version of a row on the
#: page of the old one.
STORAGE: dict[str, dict[str, float]] = {
    "Task": {
        **EARLY,
        "fillfactor": 85,
        "autovacuum_analyze_scale_factor": 0.05,
        "autovacuum_analyze_threshold": 1000,
    },
    "Worker": {**EARLY, "autovacuum_vacuum_threshold": 100, "fillfactor": 50},
    "Result": HISTORY,
    "DeadLetter": HISTORY,
    "Attempt": HISTORY,
}


def apply(apps: Apps, editor: BaseDatabaseSchemaEditor) -> None:
    for model, parameters in STORAGE.items():
        given = ", ".join(f"{name} = {value}" for name, value in parameters.items())
        _alter(apps, editor, model, f"SET ({given})")


def undo(apps: Apps, editor: BaseDatabaseSchemaEditor) -> None:
    for model, parameters in STORAGE.items():
        _alter(apps, editor, model, f"RESET ({', '.join(parameters)})")


def _alter(
    apps: Apps, editor: BaseDatabaseSchemaEditor, model: str, change: str
) -> None:
    if editor.connection.vendor == "postgresql":
        table = apps.get_model("django_jobs", model)._meta.db_table
        editor.execute(f"ALTER TABLE {editor.quote_name(table)} {change}")


class Migration(migrations.Migration):
    dependencies = [("django_jobs", "0001_initial")]

    operations = [BesideWorkers(), migrations.RunPython(apply, undo), BesideWorkers()]
