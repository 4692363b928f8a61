"""What tasks and producers write on the queue's own database."""

from __future__ import annotations

from django.db import models


class Effect(models.Model):
    """Written by an atomic task: it commits with the completion, or not at all."""

    key = models.CharField(max_length=40)
    lease = models.IntegerField()

    class Meta:
        app_label = "chaos"

    def __str__(self) -> str:
        return self.key


class Order(models.Model):
    """Written by a producer in the transaction that enqueues a task."""

    key = models.CharField(max_length=40)

    class Meta:
        app_label = "chaos"

    def __str__(self) -> str:
        return self.key


class Pruned(models.Model):
    """Written by a trigger, in the transaction that deletes a result."""

    task_id = models.CharField(max_length=36)
    args = models.TextField()
    was_due = models.BooleanField()

    class Meta:
        app_label = "chaos"

    def __str__(self) -> str:
        return self.task_id
