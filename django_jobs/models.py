"""The tables: fields, indexes and querysets; every transition is in ``store``."""

from __future__ import annotations

from typing import Any

from django.db import models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.utils.translation import gettext_lazy as _

from django_jobs.ids import uuid7
from django_jobs.states import LIVE_STATES, RESULT_STATES, Reason, State, Verdict


class StateIndex(models.Index):
    """An index over the rows in one state.

    Partial where the database has partial indexes, else led by the state, so that
    rows in other states are never in the way. Not ``Index(condition=)``: MySQL and
    MariaDB ignore its condition with a warning, and the index would lead with the
    wrong column.
    """

    def __init__(self, *, fields: list[str], name: str, state: str) -> None:
        self.state = str(state)
        super().__init__(fields=fields, name=name)

    def deconstruct(self) -> Any:
        path, args, kwargs = super().deconstruct()
        return path, args, {**kwargs, "state": self.state}

    def create_sql(
        self,
        model: type[models.Model],
        schema_editor: BaseDatabaseSchemaEditor,
        using: str = "",
        **kwargs: Any,
    ) -> Any:
        index = self._for(schema_editor.connection)
        return index.create_sql(model, schema_editor, using, **kwargs)

    def _for(self, connection: Any) -> models.Index:
        if connection.features.supports_partial_indexes:
            condition = models.Q(state=self.state)
            return models.Index(fields=self.fields, name=self.name, condition=condition)
        return models.Index(fields=["state", *self.fields], name=self.name)


def _choices(states: Any) -> list[tuple[str, str]]:
    return [(str(state), str(state)) for state in sorted(states)]


class TaskFields(models.Model):
    """What a task carries with it through the three tables."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    name = models.CharField(_("task"), max_length=200)
    queue_name = models.CharField(_("queue"), max_length=100)
    #: Minus the priority: ascending, so that every database can index the order.
    order_key = models.SmallIntegerField(default=0)
    args = models.TextField(default="[]")
    kwargs = models.TextField(default="{}")
    #: The arguments in at most 200 characters; lists never load the arguments.
    summary = models.CharField(max_length=200, default="", blank=True)
    metadata = models.TextField(default="{}")
    headers = models.TextField(default="{}")
    #: Attempts that count so far, the running one included.
    attempt = models.IntegerField(default=0)
    #: Attempts among them that took their process or worker with them.
    crashes = models.SmallIntegerField(default=0)
    max_attempts = models.SmallIntegerField(default=1)
    #: Claims so far; with ``worker_id`` it fences the outcome of a run.
    lease = models.IntegerField(default=0)
    #: Seconds; NULL takes what the task definition says.
    time_limit = models.FloatField(null=True, blank=True)
    enqueued_at = models.DateTimeField()
    #: The time due.
    run_after = models.DateTimeField()
    #: Start of the first attempt.
    started_at = models.DateTimeField(null=True, blank=True)
    #: Start of the newest attempt; while it runs, the time of its claim.
    last_attempted_at = models.DateTimeField(null=True, blank=True)
    worker_id = models.UUIDField(null=True, blank=True)

    class Meta:
        abstract = True

    def __str__(self) -> str:
        return f"{self.name} {self.pk}"

    @property
    def priority(self) -> int:
        return -self.order_key


class Task(TaskFields):
    """A task to do or being done."""

    state = models.CharField(
        max_length=10, choices=_choices(LIVE_STATES), default=State.READY
    )
    expires = models.DateTimeField(null=True, blank=True)
    #: Set while it runs; the worker that has it interrupts it.
    revoke_requested = models.BooleanField(default=False)
    #: Since when it goes from worker to worker because none knows its name.
    unknown_since = models.DateTimeField(null=True, blank=True)
    #: Last words of the running task: {"current":, "total":, "message":}.
    progress = models.TextField(null=True, blank=True)  # noqa: DJ001

    class Meta:
        verbose_name = _("task")
        verbose_name_plural = _("tasks")
        indexes = [
            StateIndex(
                fields=["queue_name", "order_key", "run_after", "id"],
                name="django_jobs_task_ready",
                state=State.READY,
            ),
            StateIndex(
                fields=["run_after"],
                name="django_jobs_task_scheduled",
                state=State.SCHEDULED,
            ),
            StateIndex(
                fields=["worker_id"],
                name="django_jobs_task_running",
                state=State.RUNNING,
            ),
        ]


class Result(TaskFields):
    """A task that is done: successful, revoked or expired."""

    state = models.CharField(max_length=10, choices=_choices(RESULT_STATES))
    finished_at = models.DateTimeField()
    #: JSON; NULL when the task stores no result.
    return_value = models.TextField(null=True, blank=True)  # noqa: DJ001
    log = models.TextField(null=True, blank=True)  # noqa: DJ001
    #: When it may be pruned; NULL never.
    prune_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        verbose_name = _("result")
        verbose_name_plural = _("results")
        indexes = [models.Index(fields=["prune_at"], name="django_jobs_result_prune")]


class DeadLetter(TaskFields):
    """A task that failed for good and needs a person."""

    state = State.FAILED
    reason = models.CharField(max_length=40, choices=_choices(Reason))
    exception_class = models.CharField(max_length=200, default="", blank=True)
    message = models.TextField(default="", blank=True)
    traceback = models.TextField(default="", blank=True)
    #: Equal for failures of the same class at the same place in the code.
    fingerprint = models.CharField(max_length=16, default="", blank=True)
    finished_at = models.DateTimeField()
    prune_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        verbose_name = _("dead letter")
        verbose_name_plural = _("dead letters")
        indexes = [
            models.Index(fields=["prune_at"], name="django_jobs_dead_prune"),
            models.Index(
                fields=["fingerprint", "finished_at"], name="django_jobs_dead_groups"
            ),
        ]


class Attempt(models.Model):
    """An attempt that did not succeed; the successful one is the Result."""

    id = models.BigAutoField(primary_key=True)
    task_id = models.UUIDField()
    number = models.IntegerField()
    verdict = models.CharField(max_length=12, choices=_choices(Verdict))
    worker_id = models.UUIDField(null=True, blank=True)
    #: The worker's label, kept because its row is gone when it is.
    worker_name = models.CharField(max_length=200, default="", blank=True)
    release = models.CharField(max_length=100, default="", blank=True)
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField()
    exception_class = models.CharField(max_length=200, default="", blank=True)
    message = models.TextField(default="", blank=True)
    traceback = models.TextField(default="", blank=True)
    fingerprint = models.CharField(max_length=16, default="", blank=True)
    log = models.TextField(null=True, blank=True)  # noqa: DJ001
    #: When the dead letter it led to was put back to work: from then on it is history.
    requeued_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        verbose_name = _("attempt")
        verbose_name_plural = _("attempts")
        indexes = [
            models.Index(fields=["task_id", "number"], name="django_jobs_attempt_task"),
            models.Index(fields=["finished_at"], name="django_jobs_attempt_time"),
        ]

    def __str__(self) -> str:
        return f"attempt {self.number} of {self.task_id}"


class Worker(models.Model):
    """A ``jobworker`` that is alive, or was until its lease ran out."""

    id = models.UUIDField(primary_key=True, editable=False)
    name = models.CharField(max_length=200)
    host = models.CharField(max_length=255)
    pid = models.IntegerField()
    #: Boot and process namespace; with ``pid_start`` it tells whether pid is the same.
    boot = models.CharField(max_length=100, default="", blank=True)
    pid_start = models.CharField(max_length=40, default="", blank=True)
    version = models.CharField(max_length=40, default="", blank=True)
    release = models.CharField(max_length=100, default="", blank=True)
    queues = models.TextField(default="", blank=True)
    processes = models.IntegerField(default=1)
    threads = models.IntegerField(default=1)
    coroutines = models.IntegerField(default=0)
    state = models.CharField(max_length=12, default="running")
    started_at = models.DateTimeField()
    seen_at = models.DateTimeField()
    #: Its lease: afterwards it counts as dead and its tasks are rescued.
    expires_at = models.DateTimeField()
    #: Start of the server that has its lock, and how long it may be silent without.
    lock_server = models.DateTimeField(null=True, blank=True)
    lock_grace = models.FloatField(null=True, blank=True)
    running = models.IntegerField(default=0)
    memory_bytes = models.BigIntegerField(null=True, blank=True)
    cpu_seconds = models.FloatField(null=True, blank=True)
    #: JSON: what its slots are busy with.
    current = models.TextField(default="[]", blank=True)
    #: JSON: requests to it, e.g. quiet, stop, restart.
    commands = models.TextField(default="[]", blank=True)

    class Meta:
        verbose_name = _("worker")
        verbose_name_plural = _("workers")

    def __str__(self) -> str:
        return self.name


class Queue(models.Model):
    """What is set for a queue: pause and limits. A queue needs no row to be used."""

    name = models.CharField(max_length=100, primary_key=True)
    paused_at = models.DateTimeField(null=True, blank=True)
    paused_until = models.DateTimeField(null=True, blank=True)
    paused_by = models.CharField(max_length=150, default="", blank=True)
    pause_reason = models.TextField(default="", blank=True)
    concurrency_limit = models.IntegerField(null=True, blank=True)
    #: Rate limit: so many starts per period.
    rate_limit = models.IntegerField(null=True, blank=True)
    rate_period = models.FloatField(null=True, blank=True)

    class Meta:
        verbose_name = _("queue")
        verbose_name_plural = _("queues")

    def __str__(self) -> str:
        return self.name


class Schedule(models.Model):
    """A rule that enqueues a task again and again, or once at a time."""

    class Kind(models.TextChoices):
        CRON = "cron", _("cron")
        INTERVAL = "interval", _("interval")
        CLOCKED = "clocked", _("once")

    class Missed(models.TextChoices):
        SKIP = "skip", _("skip")
        ONE = "one", _("run once")
        ALL = "all", _("run all")

    class Overlap(models.TextChoices):
        ALLOW = "allow", _("allow")
        SKIP = "skip", _("skip")
        QUEUE_ONE = "queue_one", _("queue one")
        REVOKE = "revoke", _("revoke the old")

    id = models.BigAutoField(primary_key=True)
    name = models.CharField(max_length=200, unique=True)
    description = models.TextField(default="", blank=True)
    task = models.CharField(max_length=200)
    args = models.TextField(default="[]", blank=True)
    kwargs = models.TextField(default="{}", blank=True)
    queue_name = models.CharField(max_length=100, default="", blank=True)
    priority = models.SmallIntegerField(null=True, blank=True)
    kind = models.CharField(max_length=10, choices=Kind.choices)
    cron = models.CharField(max_length=100, default="", blank=True)
    interval = models.FloatField(_("interval in seconds"), null=True, blank=True)
    clocked_at = models.DateTimeField(null=True, blank=True)
    timezone = models.CharField(max_length=64, default="", blank=True)
    missed = models.CharField(max_length=10, choices=Missed.choices, default=Missed.ONE)
    missed_limit = models.IntegerField(default=100)
    overlap = models.CharField(
        max_length=10, choices=Overlap.choices, default=Overlap.ALLOW
    )
    is_enabled = models.BooleanField(default=True)
    pause_reason = models.TextField(default="", blank=True)
    starts_at = models.DateTimeField(null=True, blank=True)
    ends_at = models.DateTimeField(null=True, blank=True)
    max_runs = models.IntegerField(null=True, blank=True)
    jitter = models.FloatField(_("jitter in seconds"), default=0)
    #: Declared in code, which then owns the rule.
    is_from_code = models.BooleanField(default=False)
    next_run_at = models.DateTimeField(null=True, blank=True)
    last_run_at = models.DateTimeField(null=True, blank=True)
    last_task_id = models.UUIDField(null=True, blank=True)
    run_count = models.IntegerField(default=0)
    failures = models.IntegerField(default=0)
    error = models.TextField(default="", blank=True)

    class Meta:
        verbose_name = _("schedule")
        verbose_name_plural = _("schedules")
        indexes = [
            models.Index(
                fields=["is_enabled", "next_run_at"], name="django_jobs_schedule_due"
            )
        ]

    def __str__(self) -> str:
        return self.name


class Rollup(models.Model):
    """Counts of finished runs per period, queue and task; they survive pruning."""

    id = models.BigAutoField(primary_key=True)
    starts_at = models.DateTimeField()
    #: Length of the period: 60, 3600 or 86400 seconds.
    seconds = models.IntegerField(default=60)
    queue_name = models.CharField(max_length=100)
    name = models.CharField(_("task"), max_length=200)
    #: ``Verdict`` of the runs counted.
    verdict = models.CharField(max_length=12, choices=_choices(Verdict))
    count = models.BigIntegerField(default=0)
    run_seconds = models.FloatField(default=0)
    wait_seconds = models.FloatField(default=0)
    #: JSON: counts in fixed logarithmic buckets, for percentiles.
    run_buckets = models.TextField(default="[]")
    wait_buckets = models.TextField(default="[]")

    class Meta:
        verbose_name = _("rollup")
        verbose_name_plural = _("rollups")
        constraints = [
            models.UniqueConstraint(
                fields=["seconds", "starts_at", "queue_name", "name", "verdict"],
                name="django_jobs_rollup_key",
            )
        ]

    def __str__(self) -> str:
        return f"{self.name} {self.starts_at}"


class Operation(models.Model):
    """A bulk action that runs in the background."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    kind = models.CharField(max_length=20)
    #: JSON: which rows; ``cutoff_id`` leaves later ones alone.
    filter = models.TextField(default="{}")
    cutoff_id = models.UUIDField(null=True, blank=True)
    reason = models.TextField(default="", blank=True)
    user_id = models.CharField(max_length=64, default="", blank=True)
    total = models.IntegerField(null=True, blank=True)
    done = models.IntegerField(default=0)
    skipped = models.IntegerField(default=0)
    state = models.CharField(max_length=12, default="waiting")
    created_at = models.DateTimeField()
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        verbose_name = _("operation")
        verbose_name_plural = _("operations")

    def __str__(self) -> str:
        return f"{self.kind} {self.pk}"


class Maintenance(models.Model):
    """When a chore was last done; a compare-and-set on it picks who does it next."""

    name = models.CharField(max_length=50, primary_key=True)
    last_run_at = models.DateTimeField()

    class Meta:
        verbose_name = _("maintenance")
        verbose_name_plural = _("maintenance")

    def __str__(self) -> str:
        return self.name
