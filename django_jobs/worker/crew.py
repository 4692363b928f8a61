"""What the children say, and what becomes of them and of their tasks."""

from __future__ import annotations

import logging
import selectors
import socket
import time
from collections.abc import Callable, Iterable
from typing import Any

from django_jobs import events
from django_jobs.definitions import is_async_name
from django_jobs.failpoints import reach
from django_jobs.records import ErrorRecord, Outcome
from django_jobs.states import REFUNDED_VERDICTS, Reason, Verdict
from django_jobs.worker import announce, deaths, inherited, processes
from django_jobs.worker.dispatcher import Dispatcher
from django_jobs.worker.lanes import Assigned
from django_jobs.worker.pool import Child, Phase, Pool
from django_jobs.worker.wire import BrokenChannel

logger = logging.getLogger("django_jobs")

_MEGABYTE = 1024 * 1024
#: Why a child is replaced.
_SHORTAGE = "a task was short of memory, descriptors or processes"
_DESCRIPTORS = "a task closed descriptors that were not its own"
#: No number in an outcome (seconds, counts) is larger.
MOST = 1e12
_NUMBER, _TEXT = (int, float), (str, type(None))
#: What the fields of an outcome are in JSON.
_TYPES = (
    *(str, int, str, _NUMBER, _NUMBER, _TEXT, _NUMBER, _TEXT),
    *((list, type(None)), _TEXT, _TEXT, (*_NUMBER, type(None)), bool),
)


class Crew:
    """Listens to the children of a pool; outcomes go to ``report``.

    With each goes the identity of the worker for which the child ran the task: that
    may be a former one.
    """

    def __init__(
        self,
        pool: Pool,
        dispatcher: Dispatcher,
        selector: selectors.BaseSelector,
        report: Callable[[Outcome, str], None],
    ) -> None:
        self.pool = pool
        self.dispatcher = dispatcher
        #: Runs that ended their task or used an attempt, and runs given back.
        self.finished = 0
        self.returned = 0
        self._worker_id = ""
        #: Why the last child that could not start could not.
        self._broken = ""
        self._notice = inherited.Notice()
        self._selector = selector
        self._report = report

    # -- for the loop ----------------------------------------------------------------

    def start_missing(self, worker_id: str) -> None:
        self._worker_id = worker_id
        for child in self.pool.start_missing(worker_id):
            self._selector.register(
                child.channel, selectors.EVENT_READ, lambda one=child: self._hear(one)
            )
            self._selector.register(
                child.process.sentinel,
                selectors.EVENT_READ,
                lambda one=child: self._bury(one),
            )

    def check(self, now: float) -> None:
        """Enforce limits of time; ask back what waits too long; sweep."""
        self.pool.orphans.sweep()
        self.dispatcher.recall(now)
        for child in list(self.pool):
            child.channel.flush()
            self._enforce_limits(child, now)
            if child.is_ready and not child.may_take and child.has_only_coroutines:
                # It gets nothing more: its successor need not wait for their end.
                child.retire()

    def held_ids(self) -> set[str]:
        """Return the ids of all tasks that children have."""
        return {
            task_id
            for child in self.pool
            for lane in child.lanes.values()
            for task_id in (*lane.running, *lane.waiting)
        }

    @property
    def runs(self) -> int:
        """How many runs are over."""
        return self.finished + self.returned

    @property
    def is_busy(self) -> bool:
        return any(child.load for child in self.pool) or self.pool.orphans.are_left

    @property
    def running(self) -> int:
        return sum(
            len(lane.running) for child in self.pool for lane in child.lanes.values()
        )

    def running_names(self) -> list[str]:
        """Return the names of the tasks that run, one for each."""
        lanes = [lane for child in self.pool for lane in child.lanes.values()]
        return [one.task.name for lane in lanes for one in lane.running.values()]

    def recall_all(self) -> None:
        for child in self.pool:
            child.recall()

    def interrupt(self, revoked: set[str] | None, grace: float) -> None:
        """Ask revoked tasks that run (None: all that do) to leave.

        They are killed after the grace, in seconds.
        """
        kill_at = time.monotonic() + grace
        for child in self.pool:
            for lane in child.lanes.values():
                for task_id, assigned in lane.running.items():
                    is_meant = revoked is None or task_id in revoked
                    if is_meant and assigned.kill_at is None:
                        assigned.kill_at = kill_at
                        assigned.is_revoked = revoked is not None
                        child.channel.post(["interrupt", task_id, assigned.is_revoked])

    def abandon(self) -> None:
        """Kill all children: we have no right to their tasks any more.

        What they had is settled as they are buried, if nobody took it meanwhile.
        """
        self._worker_id = ""
        for child in self.pool:
            child.kill(deaths.LEASE_LOST)

    # -- messages --------------------------------------------------------------------

    def _hear(self, child: Child) -> None:
        if child not in self.pool.children:
            return  # buried by an event of the same batch
        try:
            messages = child.channel.receive(socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except EOFError:
            # It closed its end: dead, or a task closed descriptors that are not its.
            self._selector.unregister(child.channel)
            child.give_up()
            return
        except BrokenChannel as error:
            self._distrust(child, error)
            return
        self._obey(child, messages)
        # It has read something since, so there may be room for what did not fit.
        child.channel.flush()

    def _distrust(self, child: Child, error: Exception) -> None:
        events.log(
            logger, logging.ERROR, "child_broken", pid=child.pid, error=repr(error)
        )
        if child in self.pool.children:
            child.give_up()

    def _obey(self, child: Child, messages: list[list[Any]]) -> None:
        now = time.monotonic()
        try:
            for verb, *details in messages:
                self._obey_one(child, now, verb, *details)
        except (TypeError, ValueError, IndexError, AttributeError) as error:
            # Not what our own code sends: a task wrote into the channel.
            self._distrust(child, error)
        child.leave_if_idle()

    def _obey_one(self, child: Child, now: float, verb: str, *details: Any) -> None:
        if verb == "done":
            self._done(child, details[0], now)
        elif verb == "returned":
            self._returned(child, details[0], now)
        elif verb == "ready" and child.phase is Phase.STARTING:
            child.phase = Phase.READY
            self._broken = ""
            self._notice.say(*details)
        elif verb == "broken":
            self._say_broken(str(details[0]))
        elif verb == "worn out":
            self._replace(child, is_broken=bool(details[0]))

    def _say_broken(self, text: str) -> None:
        """Say why a child cannot start; in a line when the one before said the same."""
        told: dict[str, Any]
        if text == self._broken:
            told = {"error": text.strip().rpartition("\n")[2]}
        else:
            told = {"traceback": text}
        self._broken = text
        events.log(logger, logging.ERROR, "child_cannot_start", **told)

    def _replace(self, child: Child, *, is_broken: bool) -> None:
        """Replace a child to which a task has done what cannot be put right."""
        if child not in self.pool.children:
            return  # it is dead: its number may be another one's
        child.is_worn_out = True
        reason = _DESCRIPTORS if is_broken else _SHORTAGE
        _say_recycled(child, reason)
        if is_broken:
            # What else runs there can hear and say nothing any more.
            child.kill(reason)
        elif child.is_ready:
            child.retire()

    def _done(self, child: Child, row: list[Any], now: float) -> None:
        outcome = _read_outcome(row)
        assigned = child.find(outcome.id)
        if assigned is None or assigned.task.lease != outcome.lease:
            events.log(logger, logging.ERROR, "outcome_of_nothing", task_id=outcome.id)
            return
        reach("complete.received")
        self._remove(child, outcome.id, now)
        child.finished += 1
        self._count(assigned, outcome)
        task = assigned.task
        seconds = outcome.finished - outcome.started
        self.dispatcher.learn(task.name, is_async_name(task.name), seconds)
        if not outcome.recorded:
            self._report(outcome, child.worker_id)
        self._recycle_if_used_up(child)

    def _count(self, assigned: Assigned, outcome: Outcome) -> None:
        is_refunded = outcome.verdict in REFUNDED_VERDICTS and not assigned.is_revoked
        self.returned += is_refunded
        self.finished += not is_refunded

    @staticmethod
    def _remove(child: Child, task_id: str, now: float) -> Assigned | None:
        for lane in child.lanes.values():
            if (assigned := lane.remove(task_id, now)) is not None:
                return assigned
        return None

    def _returned(self, child: Child, ids: list[str], now: float) -> None:
        if not all(isinstance(task_id, str) for task_id in ids):
            raise TypeError("the id of a task is a text")
        child.is_recalling = False
        returned = [self._remove(child, task_id, now) for task_id in ids]
        self._take_back(child, [one for one in returned if one], now)

    def _take_back(
        self, child: Child, untouched: Iterable[Assigned], now: float
    ) -> None:
        tasks = [one.task for one in untouched]
        if child.worker_id == self._worker_id:
            self.dispatcher.take_back(tasks, now)
            return
        for task in tasks:
            outcome = Outcome(task.id, task.lease, Verdict.RELEASED)
            self._report(outcome, child.worker_id)

    # -- limits ----------------------------------------------------------------------

    def _enforce_limits(self, child: Child, now: float) -> None:
        for lane in child.lanes.values():
            for task_id, assigned in lane.running.items():
                deadline = assigned.deadline
                if deadline is not None and now >= deadline:
                    is_limit = assigned.kill_at is None
                    reason = deaths.TIME_LIMIT if is_limit else deaths.INTERRUPTED
                    events.log(
                        logger,
                        logging.WARNING,
                        "child_killed",
                        pid=child.pid,
                        task=assigned.task.name,
                        task_id=task_id,
                        reason=reason,
                    )
                    child.kill(reason, task_id)
                    return

    def _recycle_if_used_up(self, child: Child) -> None:
        options = self.pool.options
        if not child.is_ready:
            return
        if options.recycle_after is not None and (
            child.finished >= options.recycle_after
        ):
            child.retire()
        elif options.max_memory is not None:
            memory = processes.memory_of(child.pid) or 0
            if memory > options.max_memory:
                _say_recycled(
                    child,
                    "memory",
                    memory_mb=memory // _MEGABYTE,
                    limit_mb=options.max_memory // _MEGABYTE,
                )
                child.retire()

    # -- deaths ----------------------------------------------------------------------

    def _bury(self, child: Child) -> None:
        """Settle what a dead child leaves behind."""
        is_death = child.phase is not Phase.RETIRING or child.is_worn_out
        self.pool.remove(child)
        for messages in child.last_messages():
            self._obey(child, messages)
        self.forget(child)
        code, fault = child.process.exitcode, child.last_fault()
        if is_death:
            _say_gone(child, code, fault)
        self._settle(child, processes.describe_exit(code), fault)
        # What the task started may live on, in its group or out of it. What it sent
        # out of its group may do so when the child has left as it was told.
        processes.kill_group(child.pid)
        if is_death:
            self.pool.orphans.died(child.number)
        child.bury()

    def _settle(self, child: Child, how: str, fault: str) -> None:
        now = time.monotonic()
        for lane in child.lanes.values():
            running, waiting = lane.take_all()
            self._take_back(child, waiting, now)
            for assigned in running:
                outcome = deaths.outcome_of_death(
                    assigned, how, child.killed_for, fault
                )
                self._count(assigned, outcome)
                # The child would have said it. Receivers of signals are not told:
                # the parent runs no user code.
                announce.log_attempt(
                    assigned.task,
                    child.worker_id,
                    outcome,
                    is_revoked=assigned.is_revoked,
                )
                self._report(outcome, child.worker_id)

    def forget(self, child: Child) -> None:
        """Stop listening to a child."""
        for source in (child.channel, child.process.sentinel):
            try:
                self._selector.unregister(source)
            except (KeyError, ValueError):
                continue  # its channel was closed before it died


def _say_gone(child: Child, code: int | None, fault: str) -> None:
    told: dict[str, Any] = {"pid": child.pid, "code": code}
    if child.killed_for:
        told["killed_for"] = child.killed_for[0]
    if fault:
        told["traceback"] = fault
    events.log(logger, logging.WARNING, "child_gone", **told)


def _say_recycled(child: Child, reason: str, **figures: Any) -> None:
    events.log(
        logger,
        logging.INFO,
        "child_recycled",
        pid=child.pid,
        reason=reason,
        **figures,
    )


def _read_outcome(row: list[Any]) -> Outcome:
    """Return an outcome as it was before it went through the channel."""
    outcome = Outcome._make(row)
    _check(outcome, _TYPES)
    if outcome.error is not None:
        _check(ErrorRecord._make(outcome.error), (str,) * len(ErrorRecord._fields))
    return outcome._replace(
        verdict=Verdict(outcome.verdict),
        reason=None if outcome.reason is None else Reason(outcome.reason),
        error=None if outcome.error is None else ErrorRecord._make(outcome.error),
    )


def _check(values: Iterable[Any], types: Iterable[Any]) -> None:
    # The database would refuse the wrong ones again and again.
    for value, kind in zip(values, types, strict=True):
        is_number = isinstance(value, (int, float))
        # A number that is none, or that a float cannot hold, would end our own sums.
        if not isinstance(value, kind) or (is_number and not abs(value) < MOST):
            raise TypeError(f"not what a child sends: {values!r:.200}")
