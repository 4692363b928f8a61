"""Completion: outcomes become results, dead letters, or tasks to do again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from django_jobs.conf import conf
from django_jobs.failpoints import reach
from django_jobs.records import ErrorRecord, Outcome
from django_jobs.states import RESULT_STATES, Reason, State, Verdict
from django_jobs.store.dialect import as_id, own_transaction
from django_jobs.store.errors import is_refusal
from django_jobs.store.reading import Reading
from django_jobs.store.verdicts import Held, Move, decide

#: Columns that a task carries unchanged from table to table.
CARRIED = (
    "id, name, queue_name, order_key, args, kwargs, summary, headers, "
    "max_attempts, lease, time_limit, enqueued_at, run_after, worker_id"
)
#: Lock the tasks whose leases still hold.
HOLD = """
SELECT id, lease, crashes, revoke_requested,
       CASE WHEN unknown_since <= {later[%s]} THEN 1 ELSE 0 END
FROM {by_id[task]} WHERE state = 'RUNNING' AND worker_id = %s AND id IN
"""
#: Times of a run: no earlier than its claim, whatever the clocks say. Parameters:
#: has it run, and how many seconds ago it started (negative), both of them twice.
RUN_TIMES = """
       CASE WHEN %s THEN COALESCE(started_at, {latest}(last_attempted_at, {later[%s]}))
            ELSE started_at END,
       CASE WHEN %s THEN {latest}(last_attempted_at, {later[%s]})
            WHEN started_at IS NULL THEN NULL ELSE last_attempted_at END,
"""
#: The attempts without the refunded one; whatever a hand has written has one less.
ATTEMPTS = "{latest}(attempt, -2147483647) - %s"
#: What moves the counters and the metadata. Parameters: refund, crash, metadata.
COUNTERS = (
    f"{ATTEMPTS}, "
    "CASE WHEN %s = 1 THEN {next[crashes]} ELSE crashes END, "
    "COALESCE(%s, metadata)"
)
#: The end of a run, some seconds ago (negative).
FINISHED = "COALESCE({latest}(last_attempted_at, {later[%s]}), {now})"

#: Copy a task to the results.
TO_RESULT = f"""
INSERT INTO {{result}} ({CARRIED}, attempt, crashes, metadata, started_at,
    last_attempted_at, finished_at, state, return_value, log, prune_at)
SELECT {CARRIED}, {COUNTERS}, {RUN_TIMES} {FINISHED}, %s, %s, %s, {{later[%s]}}
FROM {{task}} WHERE id = %s AND lease = %s AND {{bare_state}} = 'RUNNING'
"""
#: Copy a task to the dead letters.
TO_DEAD_LETTER = f"""
INSERT INTO {{dead_letter}} ({CARRIED}, attempt, crashes, metadata, started_at,
    last_attempted_at, finished_at, reason, exception_class, message, traceback,
    fingerprint, prune_at)
SELECT {CARRIED}, {COUNTERS}, {RUN_TIMES} {FINISHED}, %s, %s, %s, %s, %s, {{later[%s]}}
FROM {{task}} WHERE id = %s AND lease = %s AND {{bare_state}} = 'RUNNING'
"""
#: Keep a record of a run that did not succeed.
TO_ATTEMPT = f"""
INSERT INTO {{attempts}} (task_id, number, verdict, worker_id, worker_name, {{release}},
    started_at, finished_at, exception_class, message, traceback, fingerprint, log)
SELECT id, attempt, %s, worker_id,
       COALESCE((SELECT w.name FROM {{worker}} w
           WHERE w.id = {{task}}.worker_id), ''), '',
       {{latest}}(last_attempted_at, {{later[%s]}}), {FINISHED}, %s, %s, %s, %s, %s
FROM {{task}} WHERE id = %s AND lease = %s AND {{bare_state}} = 'RUNNING'
"""
#: Put a task back to work. MySQL sets from left to right, and ``started_at`` needs
#: the time of the claim: it comes before ``last_attempted_at``.
PUT_BACK = f"""
UPDATE {{by_id[task]}} SET state = %s, worker_id = NULL, progress = NULL,
    attempt = {ATTEMPTS},
    crashes = CASE WHEN %s = 1 THEN {{next[crashes]}} ELSE crashes END,
    metadata = COALESCE(%s, metadata),
    run_after = CASE WHEN %s THEN run_after ELSE {{later[%s]}} END,
    unknown_since = CASE WHEN %s THEN COALESCE(unknown_since, {{now}})
                         WHEN %s THEN unknown_since ELSE NULL END,
    started_at = CASE WHEN %s
        THEN COALESCE(started_at, {{latest}}(last_attempted_at, {{later[%s]}}))
        ELSE started_at END,
    last_attempted_at = CASE WHEN %s THEN {{latest}}(last_attempted_at, {{later[%s]}})
        WHEN started_at IS NULL THEN NULL ELSE last_attempted_at END
WHERE {{bare_state}} = 'RUNNING' AND id IN
"""
#: What still is as it was when it was locked.
IS_RUNNING = "{bare_state} = 'RUNNING'"

#: What stands in the dead letter of an outcome that the database refuses.
REFUSED = ErrorRecord(
    "django_jobs.exceptions.JobsError",
    "The task ran, but the database refused to store what became of it.",
    "",
    "",
)
NO_ERROR = ErrorRecord("", "", "", "")


class Completing(Reading):
    """Write what became of claimed tasks, whatever that is."""

    def complete_here(self, worker_id: str, outcome: Outcome) -> bool:
        return not self._complete(worker_id, [outcome])

    def _complete(self, worker_id: str, outcomes: Sequence[Outcome]) -> list[str]:
        """Complete tasks in the open transaction; return the ids of the stale."""
        held = self._hold(worker_id, [outcome.id for outcome in outcomes])
        moves, stale = [], []
        for outcome in outcomes:
            row = held.pop((outcome.id, outcome.lease), None)
            if row is None:
                stale.append(outcome.id)
            else:
                moves.append(decide(row, outcome))
        return stale + self._write(moves)

    def _hold(self, worker_id: str, ids: Iterable[str]) -> dict[tuple[str, int], Held]:
        rows = self.rows_in(
            HOLD,
            ids,
            [-conf().UNKNOWN_TASK_TIMEOUT, self.to_id(worker_id)],
            "ORDER BY id {lock}",
        )
        return {(held.id, held.lease): held for held in map(_as_held, rows)}

    def _write(self, moves: Sequence[Move]) -> list[str]:
        """Write moves of locked tasks; return the ids of what had ended before.

        That cannot be, unless rows were written by hand: then the first end stands,
        and the task is not left to run again and again.
        """
        ends = {move.id for move in moves if move.state.is_finished}
        before = self.finished(sorted(ends)) if ends else []
        new = [move for move in moves if move.id not in before]
        recorded = [move for move in moves if move.is_recorded]
        results = [move for move in new if move.state in RESULT_STATES]
        dead = [move for move in new if move.state is State.FAILED]
        self._copy(TO_ATTEMPT, [self._attempt_row(move) for move in recorded])
        self._copy(TO_RESULT, [self._result_row(move) for move in results])
        self._copy(TO_DEAD_LETTER, [self._dead_row(move) for move in dead])
        if ends:
            reach("complete.after_insert")
        self.expect(len(ends), self.delete_in("task", ends, IS_RUNNING))
        self._put_back([move for move in moves if move.id not in ends])
        return before

    def _copy(self, template: str, rows: Sequence[Sequence[Any]]) -> None:
        self.expect(len(rows), self.run_many(template, rows))

    def _put_back(self, moves: Sequence[Move]) -> None:
        alike: dict[tuple[Any, ...], list[str]] = {}
        for move in moves:
            alike.setdefault(_back_row(move), []).append(move.id)
        alone, count = [], 0
        for row, ids in alike.items():
            if len(ids) == 1:
                alone.append([*row, self.to_id(ids[0])])
            else:
                count += self.run_in(PUT_BACK, ids, row)
        count += self.run_many(f"{PUT_BACK} (%s)", alone)
        self.expect(len(moves), count)

    # -- parameters ------------------------------------------------------------------

    def _result_row(self, move: Move) -> list[Any]:
        return [
            *_common(move),
            str(move.state),
            move.outcome.return_value,
            move.outcome.log,
            move.prune_in,
            self.to_id(move.id),
            move.outcome.lease,
        ]

    def _dead_row(self, move: Move) -> list[Any]:
        return [
            *_common(move),
            str(move.reason),
            *_error(move.outcome),
            move.prune_in,
            self.to_id(move.id),
            move.outcome.lease,
        ]

    def _attempt_row(self, move: Move) -> list[Any]:
        return [
            str(move.outcome.verdict),
            -move.started,
            -move.finished,
            *_error(move.outcome),
            move.outcome.log,
            self.to_id(move.id),
            move.outcome.lease,
        ]

    # -- what the database refuses -----------------------------------------------------

    def refuses(self, error: Exception, outcomes: Iterable[Outcome]) -> bool:
        """Tell whether it is one of the outcomes that made the error."""
        return is_refusal(error)

    def _complete_each(self, worker_id: str, outcomes: Iterable[Outcome]) -> list[str]:
        """Complete one by one, so that a bad outcome costs only itself."""
        return [
            outcome.id
            for outcome in outcomes
            if not self._complete_somehow(worker_id, outcome)
        ]

    def _complete_somehow(self, worker_id: str, outcome: Outcome) -> bool:
        for version in (outcome, escaped(outcome)):
            try:
                return self._complete_alone(worker_id, version)
            except Exception as error:
                if not self.refuses(error, [version]):
                    raise
        return self._complete_alone(worker_id, _refused(outcome))

    @own_transaction
    def _complete_alone(self, worker_id: str, outcome: Outcome) -> bool:
        return self.complete_here(worker_id, outcome)


def _as_held(row: Sequence[Any]) -> Held:
    return Held(as_id(row[0]), row[1], row[2], bool(row[3]), bool(row[4]))


def _common(move: Move) -> list[Any]:
    return [
        move.refund,
        move.crash,
        move.outcome.metadata,
        *[move.has_run, -move.started] * 2,
        -move.finished,
    ]


def _back_row(move: Move) -> tuple[Any, ...]:
    started = -move.started if move.has_run else 0.0
    return (
        str(move.state),
        move.refund,
        move.crash,
        move.outcome.metadata,
        move.keeps_place,
        move.outcome.delay,
        move.outcome.verdict is Verdict.UNKNOWN,
        move.outcome.verdict is Verdict.RELEASED,
        *(move.has_run, started) * 2,
    )


def _error(outcome: Outcome) -> list[str]:
    error = outcome.error or NO_ERROR
    return [
        error.exception_class[:200],
        error.message,
        error.traceback,
        error.fingerprint[:16],
    ]


def escaped(outcome: Outcome) -> Outcome:
    """Return an outcome whose texts every database can store."""
    error = outcome.error
    return outcome._replace(
        return_value=_plain(outcome.return_value),
        log=_plain(outcome.log),
        metadata=_plain(outcome.metadata),
        error=error and ErrorRecord(*(_plain(text) or "" for text in error)),
    )


def _plain(text: str | None) -> str | None:
    """Escape as JSON does what is not plain text: NUL and lone surrogates."""
    if text is None:
        return None
    return "".join(
        f"\\u{ord(each):04x}" if each == "\0" or "\ud800" <= each <= "\udfff" else each
        for each in text
    )


def _refused(outcome: Outcome) -> Outcome:
    return Outcome(
        outcome.id,
        outcome.lease,
        Verdict.FAILED,
        outcome.started,
        outcome.finished,
        reason=Reason.CORRUPT,
        error=REFUSED,
    )
