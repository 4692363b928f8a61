"""The graceful stop: drain, interrupt, kill, flush, sign off; a signal skips ahead."""

from __future__ import annotations

import logging
import time
from collections import Counter
from enum import IntEnum
from typing import Any

from django_jobs import events
from django_jobs.failpoints import reach
from django_jobs.records import Outcome
from django_jobs.states import Verdict
from django_jobs.worker.completer import Completer, Job
from django_jobs.worker.crew import Crew
from django_jobs.worker.dispatcher import Dispatcher
from django_jobs.worker.exchange import Exchange

logger = logging.getLogger("django_jobs")

#: How long interrupted tasks may tidy up, how long the killed may take to be gone,
#: and how long the last writes may take, in seconds.
INTERRUPT_SECONDS = 3.0
KILL_SECONDS = 5.0
FLUSH_SECONDS = 5.0
#: The same while the database is away: our lease runs out, and others take over.
AWAY_SECONDS = 3.0
#: How long a registration under way may take: without one there is nothing to write.
REGISTER_SECONDS = 0.5
#: So many awaited tasks are named in the log.
MOST_NAMED = 5


class Stage(IntEnum):
    """How far the stop has come."""

    RUNNING = 0
    DRAINING = 1  #: nothing new; running tasks go on
    INTERRUPTING = 2  #: running tasks were asked to leave
    KILLING = 3  #: their processes were killed
    FLUSHING = 4  #: outcomes are written
    SIGNING_OFF = 5  #: the worker's row is deleted
    OVER = 6


class Shutdown:
    """Which stage the stop is in, and what is to be done there."""

    def __init__(
        self,
        crew: Crew,
        dispatcher: Dispatcher,
        exchange: Exchange,
        completer: Completer,
        drain_seconds: float,
    ) -> None:
        self.stage = Stage.RUNNING
        #: When the stage ends by itself, monotonic.
        self.deadline = float("inf")
        self._crew = crew
        self._dispatcher = dispatcher
        self._exchange = exchange
        self._completer = completer
        self._drain_seconds = drain_seconds

    @property
    def is_wanted(self) -> bool:
        return self.stage > Stage.RUNNING

    def request(self, reason: str) -> None:
        """Begin the stop; when it has begun, skip to its next stage."""
        if self.stage is Stage.RUNNING:
            self._drain(reason)
        elif self.stage is Stage.DRAINING:
            self._interrupt()
        elif self.stage is Stage.INTERRUPTING:
            self._kill()

    def kill(self, reason: str) -> None:
        """Stop as well, or go on with it, and skip to the killing of what runs."""
        if not self.is_wanted:
            self._take_no_more()
        if self.stage < Stage.KILLING:
            self._kill(reason=reason)

    def advance(self, now: float) -> None:
        """Do what the stage asks for, and go on to the next when it is done."""
        if self.stage < Stage.FLUSHING:
            self._release_buffered()
            if not self._crew.held_ids():
                self._flush()
            elif now >= self.deadline:
                self._escalate()
        elif self.stage is Stage.FLUSHING and self._exchange.is_settled:
            self._sign_off()
        elif now >= self.deadline:
            # The database is away, or rows are locked: our lease runs out, and others
            # take over.
            self._say_unwritten()
            self._enter(Stage.OVER)

    # -- the stages ------------------------------------------------------------------

    def _drain(self, reason: str) -> None:
        self._enter(Stage.DRAINING, self._drain_seconds)
        self._say("stopping", "interrupts them", reason=reason)
        self._take_no_more()
        reach("shutdown.draining")

    def _take_no_more(self) -> None:
        self._exchange.is_claiming = False
        self._crew.pool.is_closed = True
        self._crew.recall_all()

    def _interrupt(self) -> None:
        self._enter(Stage.INTERRUPTING, INTERRUPT_SECONDS)
        self._say("interrupting", "kills them")
        self._crew.interrupt(None, INTERRUPT_SECONDS)
        reach("shutdown.interrupting")

    def _kill(self, **fields: str) -> None:
        self._enter(Stage.KILLING, KILL_SECONDS)
        self._say("killing", **fields)
        reach("shutdown.killing")
        self._crew.pool.kill("the worker stops")

    def _escalate(self) -> None:
        {
            Stage.DRAINING: self._interrupt,
            Stage.INTERRUPTING: self._kill,
            Stage.KILLING: self._flush,
        }[self.stage]()

    def _flush(self) -> None:
        is_registered = bool(self._exchange.worker_id)
        seconds = self._patience() if is_registered else REGISTER_SECONDS
        self._enter(Stage.FLUSHING, seconds)
        reach("shutdown.flushing")

    def _sign_off(self) -> None:
        self._enter(Stage.SIGNING_OFF, self._patience())
        reach("shutdown.signing_off")
        worker_id = self._exchange.worker_id
        if not worker_id:
            self._enter(Stage.OVER)
            return
        self._completer.submit(
            Job(
                "sign off",
                work=lambda store: store.sign_off(worker_id),
                finish=lambda count: self._enter(Stage.OVER),
            )
        )

    def _say_unwritten(self) -> None:
        """Log what has ended and will run again."""
        if ids := sorted(self._exchange.unwritten):
            hint = "they run again when the lease of this worker is over"
            named = ids[: events.MOST_IDS]
            events.log(
                logger,
                logging.WARNING,
                "outcomes_unwritten",
                tasks=len(ids),
                ids=named,
                hint=hint,
            )

    def _patience(self) -> float:
        return AWAY_SECONDS if self._completer.outage.is_on else FLUSH_SECONDS

    def _enter(self, stage: Stage, seconds: float = 0.0) -> None:
        self.stage = stage
        self.deadline = time.monotonic() + seconds
        events.log(logger, logging.DEBUG, "stop_stage", stage=stage.name.lower())

    def _say(self, event: str, next_signal: str = "", **fields: Any) -> None:
        """Log what the stop waits for, for how long, and how to have it sooner."""
        running = self._crew.running_names()
        if running:
            fields |= {"running": len(running), "awaited": _in_short(running)}
            fields["seconds"] = round(self.deadline - time.monotonic(), 1)
            if next_signal:
                fields["hint"] = f"a further Ctrl-C or SIGTERM {next_signal}"
        events.log(logger, logging.INFO, event, **fields)

    def _release_buffered(self) -> None:
        for task in self._dispatcher.take_all():
            self._exchange.add(Outcome(task.id, task.lease, Verdict.RELEASED))


def _in_short(names: list[str]) -> list[str]:
    """Return the different names, with what runs several times counted."""
    counts = Counter(names)
    words = [f"{name} ({n})" if n > 1 else name for name, n in counts.items()]
    return words[:MOST_NAMED] + (["..."] if len(words) > MOST_NAMED else [])
