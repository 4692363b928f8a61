"""What the database says is ours, compared with what we have.

A claim whose answer was lost may be committed at once, or much later: a server goes on
with what it was sent, and something between may deliver it late. So this is asked soon
after each doubt, then less and less often, and now and again in any case.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from django_jobs import events
from django_jobs.records import ClaimedTask, Outcome
from django_jobs.states import Verdict
from django_jobs.store import Store
from django_jobs.worker.completer import Completer, Job

logger = logging.getLogger("django_jobs")

#: Seconds until the look after the first one, and how long they grow at most: what is
#: committed late waits about as long again.
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0


class Answer(NamedTuple):
    """What the database says of an identity of ours."""

    worker_id: str
    held: list[tuple[str, int]]
    #: Outcomes that were rejected, and whether that is since they were written before.
    stale: list[str]
    is_written: bool


class _Look:
    """A question that is under way, and what must be known to judge its answer."""

    def __init__(self, had: set[str]) -> None:
        #: The tasks that we have, or had since it began: those that come as well.
        self.had = had
        self.answers: list[Answer] | None = None
        #: The claims that may be part of the answer, and did not come back.
        self.awaited: set[object] = set()


class Reconciling:
    """Gives back what is ours in the database, and nothing is known of here.

    Nothing else waits for it. ``had`` returns the ids of the tasks that we have;
    ``write`` is called with an identity and the outcomes to be written under that.
    """

    def __init__(
        self,
        completer: Completer,
        had: Callable[[], set[str]],
        write: Callable[[str, list[Outcome]], None],
    ) -> None:
        self.completer = completer
        self._had = had
        self._write = write
        #: Identities under which more may have been claimed than we know of, and whose
        #: outcomes were rejected: perhaps since they were written before.
        self._doubtful: dict[str, list[str]] = {}
        self._claims: set[object] = set()
        self._look: _Look | None = None
        self._pause = LONGEST_PAUSE
        self._next_look = time.monotonic() + LONGEST_PAUSE

    def doubt(self, worker_id: str, stale: Iterable[str] = ()) -> None:
        """Look at once: an answer may have been lost."""
        self._doubtful.setdefault(worker_id, []).extend(stale)
        self._pause = FIRST_PAUSE / 2
        self._next_look = 0.0

    def begin(self, claim: object) -> None:
        """Note that a claim is under way."""
        self._claims.add(claim)

    def end(self, claim: object, tasks: Sequence[ClaimedTask]) -> None:
        """Note what came of it, before anything is done with that."""
        self._claims.discard(claim)
        if self._look:
            self._look.had.update(task.id for task in tasks)
            self._look.awaited.discard(claim)
            self._judge(self._look)

    def turn(self, now: float, worker_id: str) -> None:
        """Begin a look if it is time: for this identity (if any) and the doubtful."""
        if self._look or now < self._next_look or not self.completer.is_free:
            return
        doubtful, self._doubtful = self._doubtful, {}
        if worker_id:
            doubtful.setdefault(worker_id, [])
        if not doubtful:
            return
        look = self._look = _Look(self._had())
        self.completer.submit(
            Job(
                "reconcile",
                work=lambda store: [_ask(store, *each) for each in doubtful.items()],
                finish=lambda answers: self._answered(look, answers),
                is_vital=False,  # one bad row must not make it go on for ever
                failed=lambda: self._failed(doubtful),
            )
        )

    def _failed(self, doubtful: dict[str, list[str]]) -> None:
        for worker_id, stale in doubtful.items():
            self._doubtful.setdefault(worker_id, []).extend(stale)
        self._look = None
        self._put_off()

    def _answered(self, look: _Look, answers: list[Answer]) -> None:
        # What is claimed from here on is not part of the answer.
        look.answers, look.awaited = answers, set(self._claims)
        self._judge(look)

    def _judge(self, look: _Look) -> None:
        """Give back what we never had, once every claim of that time came back."""
        if look.answers is None or look.awaited:
            return
        self._look = None
        if not self._doubtful:
            self._put_off()
        for answer in look.answers:
            say_stale(answer.stale, is_written=answer.is_written)
            lost = [
                Outcome(task_id, lease, Verdict.RELEASED)
                for task_id, lease in answer.held
                if task_id not in look.had
            ]
            if lost:
                count = len(lost)
                events.log(logger, logging.WARNING, "claims_reconciled", tasks=count)
                self._write(answer.worker_id, lost)

    def _put_off(self) -> None:
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
        self._next_look = time.monotonic() + self._pause


def _ask(store: Store, worker_id: str, stale: list[str]) -> Answer:
    """Ask what an identity of ours holds, and whether it wrote ``stale`` before.

    From a worker that is alive nobody has taken tasks: where it has one no more, it
    has said itself what became of that.
    """
    held = store.held(worker_id)
    return Answer(worker_id, held, stale, bool(stale) and store.is_alive(worker_id))


def say_stale(task_ids: Sequence[str], *, is_written: bool = False) -> None:
    """Log which outcomes were rejected, if any."""
    if is_written:
        events.log(logger, logging.INFO, "outcomes_reconciled", task_ids=task_ids)
    elif task_ids:
        events.log(logger, logging.WARNING, "stale_outcomes", task_ids=task_ids)
