"""The parent: one loop over pipes, signals and timers. It never waits for the database.

What it owns: the children, the claimed tasks, the lease, hard time limits and every
outcome. The database is spoken to by threads (``completer``, ``heartbeat``) that
leave their answers in the mailbox.
"""

from __future__ import annotations

import logging
import selectors
import time
from typing import Any

from django_jobs import events, failpoints, signals
from django_jobs.conf import conf
from django_jobs.records import NewWorker, Outcome
from django_jobs.states import Verdict
from django_jobs.store import get_store
from django_jobs.store.sessions import SessionGuard
from django_jobs.worker import orphans
from django_jobs.worker.completer import Completer, Job
from django_jobs.worker.crew import Crew
from django_jobs.worker.dispatcher import MOST_CLAIMED, Dispatcher
from django_jobs.worker.exchange import Exchange
from django_jobs.worker.heartbeat import Heartbeat
from django_jobs.worker.identity import FENCE, LOCK_FENCE, LOCK_GRACE, Identity
from django_jobs.worker.listener import Listener
from django_jobs.worker.mailbox import Mailbox
from django_jobs.worker.maintenance import Chore, chores
from django_jobs.worker.options import WorkerOptions
from django_jobs.worker.pool import Pool
from django_jobs.worker.shutdown import Shutdown, Stage

logger = logging.getLogger("django_jobs")

#: Seconds between two looks at limits, recalls and memory: busy, and idle.
TICK = 0.05
IDLE_TICK = 1.0
#: Longest wait for the answer to a heartbeat, in seconds.
MOST_FOR_A_BEAT = 5.0
#: So many failed starts of children in a row end the worker: another may do better.
MOST_FAILURES = 10


class Supervisor:
    """Runs a worker from its start to its stop; ``run()`` returns when it is over."""

    def __init__(self, options: WorkerOptions) -> None:
        self.options = options
        self.mailbox = Mailbox()
        self.selector = selectors.DefaultSelector()
        self.pool = Pool(options)
        self.dispatcher = Dispatcher(self.pool)
        self.store = get_store(options.database)
        self.completer = Completer(self.store, self._post_finish)
        self.exchange = Exchange(
            self.completer, self.dispatcher, options, self._held_ids, self._allowance
        )
        self.crew = Crew(self.pool, self.dispatcher, self.selector, self.exchange.add)
        self.shutdown = Shutdown(
            self.crew,
            self.dispatcher,
            self.exchange,
            self.completer,
            options.shutdown_timeout,
        )
        self.watchdog = self.completer.watchdog
        self.guard = SessionGuard(options.database, FENCE * conf().LEASE)
        self.identity = Identity(options, self.completer, self._registered)
        #: May locks tell sooner who is dead?
        self.has_locks = conf().FAST_RESCUE and self.store.can_notify
        self.heartbeat = Heartbeat(
            self.store,
            self.completer.turn,
            interval=conf().HEARTBEAT,
            lease=conf().LEASE,
            deadline=_deadline_of_a_beat(has_locks=self.has_locks),
            renewed=self._post_renewed,
            revoked=self._post_revoked,
            outage=self.completer.outage,
            unmigrated=self.completer.unmigrated,
            watch=self.watchdog.watch(options.database),
        )
        self.listener = Listener(
            self.store,
            conf().LISTEN_DATABASE or options.database,
            self.identity.worker.id,
            self._post_wake,
            self.watchdog.watch(conf().LISTEN_DATABASE or options.database),
        )
        self.chores = chores(conf().LEASE, has_locks=self.has_locks)
        #: The lock that the row tells of.
        self._noted_lock: tuple[str, int] | None = None
        #: It stopped since it could not go on: nobody asked it to.
        self.has_failed = False
        self._next_tick = 0.0

    # -- life ------------------------------------------------------------------------

    def run(self) -> None:
        """Work until a stop was asked for and is done."""
        self.selector.register(self.mailbox, selectors.EVENT_READ, self.mailbox.open)
        adopted_before = orphans.adopt()
        if warning := self.options.undeclared():
            events.log(
                logger, logging.WARNING, "queue_not_declared", error_message=warning
            )
        failpoints.say_so()
        self.store.set_deadlines()
        self.guard.start()
        self.completer.start()
        self.identity.register()
        self.listener.start()
        try:
            while self.shutdown.stage < Stage.OVER:
                for key, _ in self.selector.select(self._timeout()):
                    key.data()
                self._turn(time.monotonic())
        finally:
            # Also after an error of ours: a parent that beats on without its loop
            # would keep its tasks from being rescued.
            self._close()
            orphans.adopt(is_wanted=adopted_before)

    def stop(self, reason: str = "asked to") -> None:
        """Ask for a graceful stop, or skip to its next stage; from any thread."""
        self.mailbox.post(lambda: self.shutdown.request(reason))

    def kill(self, reason: str = "asked to") -> None:
        """Stop without waiting for what runs: it goes back; from any thread."""
        self.mailbox.post(lambda: self.shutdown.kill(reason))

    def _close(self) -> None:
        self.pool.is_closed = True
        self.pool.kill("stopping")
        # A thread that waits for a database that is away is not waited for.
        is_away = self.completer.outage.is_on or not self.exchange.worker_id
        patience = 0.1 if is_away else 1.0
        self.listener.close(patience)
        self.heartbeat.close(patience)
        self.completer.close(patience)
        self.guard.stop()
        for child in list(self.pool):
            self.crew.forget(child)
            child.bury()
        self.pool.orphans.sweep_all(timeout=1)
        self.selector.close()
        self.mailbox.close()
        events.log(
            logger,
            logging.INFO,
            "worker_stopped",
            worker=self.identity.worker.id,
            finished=self.crew.finished,
            returned=self.crew.returned,
        )
        signals.worker_stopped.send_robust(NewWorker, worker=self.identity.worker)

    # -- the loop --------------------------------------------------------------------

    def _turn(self, now: float) -> None:
        if self.identity.is_registered:
            # Not before: the first one is not there until the project is loaded, and
            # the heartbeat must not wait for that as this loop does.
            self.crew.start_missing(self.identity.worker.id)
        # One that had children waits for room, and what runs goes on.
        if self.pool.failures >= MOST_FAILURES and not self.pool.has_started:
            events.log(
                logger, logging.CRITICAL, "no_children", failures=self.pool.failures
            )
            self.has_failed = True
            self.shutdown.request("children cannot be started")
            self.pool.failures = 0
        if now >= self._next_tick:
            self._tick(now)
        if not self.shutdown.is_wanted:
            self.dispatcher.dispatch(now)
        if self.crew.is_busy:
            self._next_tick = min(self._next_tick, now + TICK)
        # Before the exchange: where there is one thread only, that would always have it
        # again sooner than a chore that is due.
        self._start_chores(now)
        self.exchange.turn(now)
        if self.shutdown.is_wanted:
            self.shutdown.advance(now)
        elif self._has_done_enough():
            self.shutdown.request("done")

    def _timeout(self) -> float:
        now = time.monotonic()
        times = [self._next_tick, self.exchange.next_turn(now)]
        if self.shutdown.is_wanted:
            times.append(self.shutdown.deadline)
        if (wait := self.pool.wait_seconds()) is not None:
            times.append(now + wait)
        return max(0.0, min(times) - now)

    def _tick(self, now: float) -> None:
        """Do what need not be done at every event."""
        if self.identity.is_doubtful(now):
            self._start_anew("the lease could not be renewed")
        self.watchdog.look(now)
        self.crew.check(now)
        for task in self.dispatcher.impatient(now):
            self.exchange.add(Outcome(task.id, task.lease, Verdict.RELEASED))
        if self.identity.is_registered and not self.shutdown.is_wanted:
            self._note_lock()
        self.exchange.has_notifications = self.listener.is_heard
        self.heartbeat.set_running(self.crew.running)
        is_busy = self.crew.is_busy or len(self.dispatcher)
        times = [now + (TICK if is_busy else IDLE_TICK), self.identity.doubtful_at]
        times += [chore.due for chore in self.chores]
        self._next_tick = min(time for time in times if time > now)

    def _has_done_enough(self) -> bool:
        most = self.options.max_tasks
        if most is not None and self.crew.runs >= most:
            return True
        return (
            self.options.is_burst
            and self.exchange.is_claiming
            and any(child.is_ready for child in self.pool)
            and self.exchange.is_idle
            and not self._held_ids()
        )

    def _held_ids(self) -> set[str]:
        buffers = self.dispatcher.buffers.values()
        buffered = {task.id for buffer in buffers for _, task in buffer}
        return buffered | self.crew.held_ids()

    def _allowance(self) -> int:
        """Return how many tasks this worker may still take on."""
        most = self.options.max_tasks
        if most is None:
            return MOST_CLAIMED
        return most - self.crew.runs - len(self._held_ids())

    # -- what the threads report -------------------------------------------------------

    def _post_finish(self, job: Job) -> None:
        self.mailbox.post(lambda: self.completer.finish(job))

    def _post_wake(self) -> None:
        self.heartbeat.look_for_revocations()
        self.mailbox.post(self.exchange.wake)

    def _post_renewed(self, worker_id: str, asked: float, is_ours: bool) -> None:
        self.mailbox.post(lambda: self._renewed(worker_id, asked, is_ours))

    def _post_revoked(self, ids: list[str]) -> None:
        grace = conf().INTERRUPT_GRACE
        self.mailbox.post(lambda: self.crew.interrupt(set(ids), grace))

    def _renewed(self, worker_id: str, asked: float, is_ours: bool) -> None:
        if self.shutdown.stage >= Stage.SIGNING_OFF:
            return  # its row is gone, as it shall be
        if not self.identity.renewed(worker_id, asked, is_ours):
            self._start_anew("the lease was over")

    # -- identity ----------------------------------------------------------------------

    def _registered(self, worker: NewWorker) -> None:
        is_first = not self.heartbeat.worker_id
        self.exchange.become(worker.id)
        self.listener.lock_for = worker.id if self.has_locks else ""
        self.heartbeat.worker_id = worker.id
        if is_first:
            self.heartbeat.start(self.identity.renewed_at)
        self.exchange.is_claiming = not self.shutdown.is_wanted
        self.exchange.wake()
        events.log(
            logger,
            logging.INFO,
            "worker_started",
            worker=worker.id,
            worker_name=worker.name,
            also=self.options.introduction(self.identity.database_kind),
        )
        signals.worker_started.send_robust(NewWorker, worker=worker)
        # Chores are due: an earlier self may have left tasks behind.
        self._next_tick = 0.0

    def _start_anew(self, reason: str) -> None:
        """Stop all we run, before others take it, and go on as somebody else."""
        told: dict[str, Any] = {"reason": reason}
        if paused := self.identity.costly_pause(time.monotonic()):
            told = {"reason": "this worker was paused", "seconds": paused}
        events.log(logger, logging.ERROR, "lease_lost", **told)
        # What they had is still written if nobody took it meanwhile: the fence decides.
        self.crew.abandon()
        for task in self.dispatcher.take_all():
            self.exchange.add(Outcome(task.id, task.lease, Verdict.RELEASED))
        self.exchange.is_claiming = False
        if not self.shutdown.is_wanted:
            self.identity.register()

    def _note_lock(self) -> None:
        """Have our row tell of a lock that we hold, so that its end is evidence."""
        lock = self.listener.lock
        if lock in (None, self._noted_lock) or lock[0] != self.identity.worker.id:
            return
        # Before the row tells of it: from then on others may act sooner.
        self.identity.shorten_fence()
        self._noted_lock = lock
        worker_id, grace = lock[0], LOCK_GRACE * conf().HEARTBEAT
        self.completer.submit(
            Job(
                "note lock",
                work=lambda store: store.note_lock(worker_id, grace),
                finish=_say_noted,
                is_vital=False,
                failed=self._forget_lock,
            )
        )

    def _forget_lock(self) -> None:
        self._noted_lock = None

    # -- chores ------------------------------------------------------------------------

    def _start_chores(self, now: float) -> None:
        if self.shutdown.is_wanted or not self.identity.is_registered:
            return
        for chore in self.chores:
            if now >= chore.due and self.completer.is_free:
                chore.due = float("inf")
                self.completer.submit(_job_of(chore))


def _deadline_of_a_beat(*, has_locks: bool) -> float:
    """Return how long an answer may take so that another attempt is in time."""
    deadline = min(MOST_FOR_A_BEAT, conf().LEASE / 3)
    if has_locks:
        deadline = min(deadline, (LOCK_FENCE - 1) / 2 * conf().HEARTBEAT)
    return deadline


def _say_noted(is_noted: bool) -> None:
    if is_noted:
        events.log(logger, logging.INFO, "fast_rescue_on")
    else:
        hint = "LISTEN_DATABASE is another database? tables not migrated?"
        events.log(logger, logging.WARNING, "fast_rescue_off", hint=hint)


def _job_of(chore: Chore) -> Job:
    return Job(
        chore.name,
        work=chore.work,
        finish=lambda has_more: chore.put_off(has_more=has_more),
        failed=lambda: chore.put_off(),
        is_vital=False,
    )
