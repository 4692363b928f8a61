"""Jobs that end no run: what producers, operators and workers do besides."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from django.db import transaction

from django_jobs.records import NewTask, NewWorker
from django_jobs.store.portable import PortableStore
from tests.simulation.job import Job
from tests.simulation.model import Violation, World
from tests.simulation.rows import Row, Sight


class Enqueue(Job):
    """Insert tasks; again under the same ids when the connection turns out dead."""

    is_vital = True

    def __init__(self, world: World, tasks: Sequence[NewTask]) -> None:
        super().__init__(world)
        self.tasks = tasks
        self.ids = [task.id for task in tasks]

    def work(self, store: PortableStore) -> Any:
        return store.insert(self.tasks, again=self.failures > 0)

    def may(self, key: str, before: Row | None, after: Row | None, new: Sight) -> bool:
        if key not in self.ids or key in self.world.known:
            return False
        return before is None and after in (
            Row("Task", "READY"),
            Row("Task", "SCHEDULED"),
        )

    def check(self, answer: Any) -> None:
        self.world.acked.update(self.ids)


class EnqueueInTransaction(Enqueue):
    """Insert tasks in a transaction of the caller, who may change his mind."""

    is_vital = False

    def __init__(
        self, world: World, tasks: Sequence[NewTask], *, is_kept: bool
    ) -> None:
        super().__init__(world, tasks)
        self.is_kept = is_kept

    def work(self, store: PortableStore) -> Any:
        with transaction.atomic():
            for task in self.tasks:
                store.insert([task])
            transaction.set_rollback(not self.is_kept)

    def may(self, key: str, before: Row | None, after: Row | None, new: Sight) -> bool:
        return self.is_kept and super().may(key, before, after, new)

    def check(self, answer: Any) -> None:
        if self.is_kept:
            super().check(answer)


class Register(Job):
    """Introduce a worker."""

    is_vital = True

    def __init__(self, world: World, worker_id: str, lease: float) -> None:
        super().__init__(world, worker_id)
        self.lease = lease

    def work(self, store: PortableStore) -> Any:
        boot = "boot"
        store.register(
            NewWorker(self.worker_id, "w", "h", 1, boot, "1", "1", "", 1, 1, 0),
            self.lease,
        )


class Renew(Job):
    """Prolong a lease."""

    def __init__(self, world: World, worker_id: str, lease: float) -> None:
        super().__init__(world, worker_id)
        self.lease = lease
        self.was_robbed = worker_id in world.robbed

    def work(self, store: PortableStore) -> Any:
        return store.renew(self.worker_id, self.lease)

    def check(self, answer: Any) -> None:
        if answer is True and self.was_robbed:
            raise Violation(f"{self.name}: its tasks were taken, its lease goes on")
        if answer is True and not self.was_alive:
            raise Violation(f"{self.name}: a lease that was over goes on")


class Expire(Job):
    """End the leases of workers whose process is known to be dead."""

    def __init__(self, world: World, worker_id: str, dead: Sequence[str]) -> None:
        super().__init__(world, worker_id)
        self.dead = dead

    def work(self, store: PortableStore) -> Any:
        return store.expire_workers(self.dead)


class Say(Job):
    """Write what a running task says of itself."""

    def __init__(self, world: World, worker_id: str, task_id: str, lease: int) -> None:
        super().__init__(world, worker_id)
        self.task_id, self.lease = task_id, lease

    def work(self, store: PortableStore) -> Any:
        return store.save_metadata(
            self.worker_id, self.task_id, self.lease, progress="1"
        )

    def check(self, answer: Any) -> None:
        if answer is True and (self.task_id, self.lease) in self.world.accepted:
            raise Violation(f"{self.name} wrote after the end of its run")


class Revoke(Job):
    """Revoke tasks, whatever they do."""

    def __init__(self, world: World, ids: Sequence[str]) -> None:
        super().__init__(world)
        self.ids = ids

    def work(self, store: PortableStore) -> Any:
        return store.revoke(self.ids)

    def may(self, key: str, before: Row | None, after: Row | None, new: Sight) -> bool:
        if key not in self.ids or before is None or before.place != "Task":
            return False
        if before.state == "RUNNING":
            return after == before._replace(is_revoked=True)
        return after == before._replace(place="Result", state="REVOKED")

    def check(self, answer: Any) -> None:
        told = {key for key, words in answer.items() if words == "revoked"}
        moved = {
            key
            for key, (_, row) in self.changes.items()
            if row and row.place == "Result"
        }
        self.agree(told, moved)
        for key, words in answer.items():
            row = self.world.sight.tasks.get(key)
            # Its end may have waited for this: then it is a request no more.
            is_running = row is not None and row.state == "RUNNING"
            if words == "requested" and is_running and not row.is_revoked:
                raise Violation(f"{key[-4:]} is to stop, but {row} does not know")


class Requeue(Job):
    """Put dead letters back to work."""

    def __init__(self, world: World, ids: Sequence[str]) -> None:
        super().__init__(world)
        self.ids = ids

    def work(self, store: PortableStore) -> Any:
        return store.requeue(self.ids)

    def may(self, key: str, before: Row | None, after: Row | None, new: Sight) -> bool:
        if key not in self.ids or before is None or before.place != "DeadLetter":
            return False
        return after == Row("Task", "READY", lease=before.lease)

    def check(self, answer: Any) -> None:
        self.agree(sorted(answer), sorted(self.changes))


class Promote(Job):
    """Make due tasks READY."""

    def work(self, store: PortableStore) -> Any:
        return store.promote()

    def may(self, key: str, before: Row | None, after: Row | None, new: Sight) -> bool:
        if before is None or before.state != "SCHEDULED":
            return False
        due = self.world.sight.times[key].first
        is_due = due is not None and due <= self.world.clock.now
        return is_due and after == before._replace(state="READY")

    def check(self, answer: Any) -> None:
        self.agree(answer, len(self.changes))


class Prune(Job):
    """Delete what is past its retention, or so old."""

    def __init__(
        self, world: World, worker_id: str, limit: int, older_than: float | None
    ) -> None:
        super().__init__(world, worker_id)
        self.limit, self.older_than = limit, older_than

    def work(self, store: PortableStore) -> Any:
        return store.prune(self.limit, older_than=self.older_than)

    def may(self, key: str, before: Row | None, after: Row | None, new: Sight) -> bool:
        if before is None or before.place == "Task" or after is not None:
            return False
        prune_at, finished_at = self.world.sight.times[key]
        now = self.world.clock.now
        if self.older_than is None:
            return prune_at is not None and prune_at <= now
        assert finished_at is not None
        return finished_at + timedelta(seconds=self.older_than) <= now

    def check(self, answer: Any) -> None:
        self.agree(answer, len(self.changes))
