"""The catalogue: which files have been handed to the queue."""

from django.db import models


class SourceFile(models.Model):
    """A source file whose task was enqueued in the transaction that made this row.

    So a file is in the catalogue if and only if it has a task, whatever interrupted
    the program that enqueued it.
    """

    path = models.CharField(max_length=500, unique=True)
    task_id = models.UUIDField(unique=True)

    class Meta:
        ordering = ("path",)

    def __str__(self) -> str:
        return self.path
