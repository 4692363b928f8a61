"""Workers may hold a lock on PostgreSQL, by which their death is noticed sooner."""

from __future__ import annotations

from django.db import migrations, models

from django_jobs.migrations._beside_workers import BesideWorkers


class Migration(migrations.Migration):
    dependencies = [("django_jobs", "0003_mysql_names")]

    operations = [
        BesideWorkers(),
        migrations.AddField(
            model_name="worker",
            name="lock_server",
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name="worker",
            name="lock_grace",
            field=models.FloatField(blank=True, null=True),
        ),
        BesideWorkers(),
    ]
