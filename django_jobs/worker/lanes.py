"""What a child process has: tasks running in its slots, and tasks waiting behind them.

The child starts its tasks in the order they were sent, each as soon as a slot is free.
So the parent knows without a further message which ones it may have started: those in
a slot. The others are certainly untouched, whatever happens to the child.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from django_jobs.records import ClaimedTask


@dataclass(slots=True)
class Assigned:
    """A task that was sent to a child."""

    task: ClaimedTask
    time_limit: float | None
    #: How long it will probably take, in seconds.
    estimate: float
    #: Monotonic time at which a slot was free for it; 0 while it waits.
    started: float = 0.0
    #: Monotonic time by which the interrupted task must be gone; None as a rule.
    kill_at: float | None = None
    #: It was asked to leave since the task is revoked.
    is_revoked: bool = False

    @property
    def deadline(self) -> float | None:
        """When to kill it, monotonic; None for never."""
        if self.kill_at is not None:
            return self.kill_at
        return None if self.time_limit is None else self.started + self.time_limit


class Lane:
    """The slots of one kind (threads or coroutines) in one child."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.running: dict[str, Assigned] = {}
        self.waiting: dict[str, Assigned] = {}
        #: Probable seconds of work in the lane.
        self.estimate = 0.0

    def __len__(self) -> int:
        return len(self.running) + len(self.waiting)

    @property
    def free(self) -> int:
        return max(0, self.slots - len(self.running))

    def get(self, task_id: str) -> Assigned | None:
        return self.running.get(task_id) or self.waiting.get(task_id)

    def add(self, assigned: Assigned, now: float) -> None:
        """Note that a task was sent."""
        self.estimate += assigned.estimate
        if len(self.running) < self.slots:
            assigned.started = now
            self.running[assigned.task.id] = assigned
        else:
            self.waiting[assigned.task.id] = assigned

    def remove(self, task_id: str, now: float) -> Assigned | None:
        """Note that a task is done or came back; the next one moves into its slot."""
        assigned = self.running.pop(task_id, None)
        if assigned is None:
            assigned = self.waiting.pop(task_id, None)
        elif self.waiting:
            following = self.waiting.pop(next(iter(self.waiting)))
            following.started = now
            self.running[following.task.id] = following
        if assigned is not None:
            # Back to exactly nothing when empty: sums of floats drift.
            self.estimate = self.estimate - assigned.estimate if len(self) else 0.0
        return assigned

    def longest_running(self, now: float) -> float:
        """Return for how many seconds the oldest running task has run."""
        return max((now - one.started for one in self.running.values()), default=0.0)

    def take_all(self) -> tuple[list[Assigned], deque[Assigned]]:
        """Empty the lane; return the tasks that may have started and the untouched."""
        running, waiting = list(self.running.values()), deque(self.waiting.values())
        self.running, self.waiting, self.estimate = {}, {}, 0.0
        return running, waiting
