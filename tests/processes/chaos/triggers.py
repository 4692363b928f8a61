"""The database itself notes each result that is deleted: nobody else need say so."""

from __future__ import annotations

from django.db import connection

from django_jobs.models import Result
from django_jobs.store import get_store
from tests.processes.chaos.models import Pruned

NOTE = """
INSERT INTO {pruned} (task_id, args, was_due) VALUES (OLD.id, OLD.args,
    CASE WHEN OLD.prune_at <= {now} THEN {true} ELSE {false} END);
"""
TRIGGER = "CREATE TRIGGER chaos_pruned AFTER DELETE ON {result} FOR EACH ROW "
TRIGGERS = {
    "sqlite": [f"{TRIGGER} BEGIN {NOTE} END"],
    "mysql": [f"{TRIGGER} {NOTE}"],
    "postgresql": [
        "CREATE FUNCTION chaos_note() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN {NOTE} RETURN OLD; END $$",
        f"{TRIGGER} EXECUTE FUNCTION chaos_note()",
    ],
}


def note_what_is_pruned() -> None:
    """Have it do so from now on."""
    quote = connection.ops.quote_name
    is_postgresql = connection.vendor == "postgresql"
    names = {
        "now": get_store().NOW,
        "true": "TRUE" if is_postgresql else "1",
        "false": "FALSE" if is_postgresql else "0",
        "pruned": quote(Pruned._meta.db_table),
        "result": quote(Result._meta.db_table),
    }
    with connection.cursor() as cursor:
        for statement in TRIGGERS[connection.vendor]:
            cursor.execute(statement.format(**names) % ())
