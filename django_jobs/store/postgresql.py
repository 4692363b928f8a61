"""The store on PostgreSQL: complete and claim in one round trip."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

from django.db import connections, transaction
from django.db.backends.postgresql.psycopg_any import is_psycopg3

from django_jobs import events
from django_jobs.conf import conf
from django_jobs.failpoints import reach
from django_jobs.records import ClaimedTask, Cycle, Demand, NewTask, Outcome
from django_jobs.store.base import CHANNEL
from django_jobs.store.completing import CARRIED
from django_jobs.store.inserting import COLUMNS
from django_jobs.store.locks import Locks
from django_jobs.store.portable import (
    CLAIMED,
    CLAIMED_COLUMNS,
    READY_QUEUES,
    PortableStore,
    as_claimed,
)
from django_jobs.store.sessions import keepalive_within
from django_jobs.store.verdicts import is_success, success_times

if is_psycopg3:
    import psycopg

logger = logging.getLogger("django_jobs")

#: A prepared plan must not depend on how full the queue was when it was made: a table
#: that was empty then may hold a million rows now, and nobody has analysed it yet.
#: With these the statements below can only be planned in one way.
PLANS = """
SELECT set_config('enable_seqscan', 'off', true),
       set_config('enable_bitmapscan', 'off', true),
       set_config('jit', 'off', true)
"""
#: Complete successful tasks; returns the accepted ids if not all were. Without a join,
#: and with a state that no partial index matches, only the primary key can be used.
#: Each column is named: one that a later migration adds may be called as ours here.
COMPLETE = f"""
WITH mine AS (
    DELETE FROM {{task}} WHERE id = ANY(%(ids)s::uuid[])
        AND lease = (%(leases)s::int[])[array_position(%(ids)s::uuid[], id)]
        AND worker_id = %(worker)s::uuid AND {{bare_state}} = 'RUNNING'
    RETURNING {CARRIED}, attempt, crashes, metadata, started_at, last_attempted_at,
        array_position(%(ids)s::uuid[], id) AS place
), told AS (
    SELECT mine.*,
        (%(started)s::float8[])[place] AS started,
        (%(finished)s::float8[])[place] AS finished,
        (%(values)s::text[])[place] AS return_value,
        (%(logs)s::text[])[place] AS log,
        (%(metadata)s::text[])[place] AS new_metadata,
        (%(prune_in)s::float8[])[place] AS prune_in
    FROM mine
), done AS (
    INSERT INTO {{result}} ({CARRIED}, attempt, crashes, metadata, started_at,
        last_attempted_at, finished_at, state, return_value, log, prune_at)
    SELECT {CARRIED}, attempt, crashes, COALESCE(new_metadata, metadata),
        COALESCE(started_at, {{latest}}(last_attempted_at, {{later[started]}})),
        {{latest}}(last_attempted_at, {{later[started]}}),
        {{latest}}(last_attempted_at, {{later[finished]}}),
        'SUCCESSFUL', return_value, log, {{later[prune_in]}} FROM told
)
SELECT CASE WHEN COUNT(*) < %(count)s
    THEN COALESCE(array_agg(id::text), ARRAY[]::text[]) END FROM mine
"""
#: The first READY tasks of a queue, locked.
FIRST_READY = """
SELECT id, order_key, run_after FROM {task}
WHERE state = 'READY' AND queue_name = <queue>
    AND EXISTS (SELECT 1 FROM {worker} WHERE id = %(worker)s::uuid AND {alive})
ORDER BY order_key, run_after, id LIMIT %(limit)s FOR NO KEY UPDATE SKIP LOCKED
"""
#: The first of several queues, each with at most ``limit`` rows. A nested loop takes
#: the queues in their order and stops when it has enough: that is the strict order.
FIRST_OF_ALL = f"""
SELECT r.id FROM <queues> CROSS JOIN LATERAL ({FIRST_READY}) r
<order> LIMIT %(limit)s
"""
GIVEN_QUEUES = "unnest(%(queues)s::text[]) WITH ORDINALITY AS q (name, place)"
OTHER_QUEUES = f"({READY_QUEUES} AND name <> ALL(%(exclude)s::text[])) AS q"
#: Claim the chosen tasks. The fence MATERIALIZED keeps the choice from being made
#: again for each row.
CLAIM = f"""
WITH due AS MATERIALIZED (<chosen>), mine AS (
    UPDATE {{task}} SET state = 'RUNNING', worker_id = %(worker)s::uuid,
        attempt = {{next[attempt]}}, lease = {{next[lease]}},
        last_attempted_at = {{now}}
    WHERE id = ANY(ARRAY(SELECT id FROM due)) AND {{bare_state}} = 'READY'
    RETURNING {CLAIMED_COLUMNS}, run_after
)
SELECT {CLAIMED.replace("id,", "id::text,", 1)} FROM mine
ORDER BY <order> order_key, run_after, id
"""
IN_ORDER = "ORDER BY r.order_key, r.run_after, r.id"
BY_QUEUE = "array_position(%(queues)s::text[], queue_name::text),"
CLAIM_ONE = CLAIM.replace(
    "<chosen>", FIRST_READY.replace("<queue>", "%(queue)s")
).replace("<order>", "")


def _claim_of(queues: str, *, is_strict: bool) -> str:
    """Return the statement that claims from several queues."""
    chosen = FIRST_OF_ALL.replace("<queue>", "q.name").replace("<queues>", queues)
    chosen = chosen.replace("<order>", "" if is_strict else IN_ORDER)
    order = BY_QUEUE if is_strict else ""
    return CLAIM.replace("<chosen>", chosen).replace("<order>", order)


CLAIM_MERGED = _claim_of(GIVEN_QUEUES, is_strict=False)
CLAIM_STRICT = _claim_of(GIVEN_QUEUES, is_strict=True)
CLAIM_ANY = _claim_of(OTHER_QUEUES, is_strict=False)
#: Make due tasks READY, the longest due first.
PROMOTE = """
UPDATE {task} SET state = 'READY'
WHERE {bare_state} = 'SCHEDULED' AND run_after <= {now} AND id = ANY(ARRAY(
    SELECT id FROM {task} WHERE state = 'SCHEDULED' AND run_after <= {now}
    ORDER BY run_after LIMIT %s FOR UPDATE SKIP LOCKED))
"""
#: Insert many tasks.
INSERT_MANY = f"""
WITH done AS (
INSERT INTO {{task}} ({COLUMNS})
SELECT id, name, queue_name, order_key, args, kwargs, summary, max_attempts,
    time_limit, metadata, headers, COALESCE(expires, {{later[expires_in]}}),
    CASE WHEN due > {{now}} THEN 'SCHEDULED' ELSE 'READY' END,
    {{latest}}(due, {{now}}), {{now}}, 0, 0, 0, FALSE
FROM (
    SELECT given.*, COALESCE(run_after, {{later[delay]}}, {{now}}) AS due
    FROM unnest(%s::uuid[], %s::text[], %s::text[], %s::smallint[], %s::text[],
        %s::text[], %s::text[], %s::smallint[], %s::float8[], %s::text[], %s::text[],
        %s::timestamptz[], %s::float8[], %s::timestamptz[], %s::float8[])
    AS given (id, name, queue_name, order_key, args, kwargs, summary, max_attempts,
        time_limit, metadata, headers, expires, expires_in, run_after, delay)
) AS given
ON CONFLICT (id) DO NOTHING RETURNING enqueued_at
) SELECT {{utc[enqueued_at]}} FROM done LIMIT 1
"""
#: So many rows of parameters make it worth while to prepare a statement for them.
WORTH_PREPARING = 5
NOTIFY = f"SELECT pg_notify('{CHANNEL}', '')"


#: Sends a statement with its parameters; returns the cursor for the answer.
Send = Callable[[str, dict[str, Any]], Any]


class PostgreSQLStore(Locks, PortableStore):
    """A server of version 14 or later, with psycopg 3 or psycopg2."""

    can_notify = True
    #: Of libpq; seconds, tcp_user_timeout milliseconds. Linux alone takes 15 minutes.
    DEADLINES: ClassVar[dict[str, int]] = {
        "connect_timeout": 5,
        "keepalives_idle": 5,
        "keepalives_interval": 2,
        "keepalives_count": 3,
        "tcp_user_timeout": 10_000,
    }
    most_rows = 5000

    #: The start of the statement: ``now()`` would be the start of the transaction.
    NOW = "statement_timestamp()"

    def __init__(self, alias: str) -> None:
        super().__init__(alias)
        #: Does the server itself answer on a connection of the driver?
        self._is_direct: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()

    def set_patience(self, seconds: float) -> None:
        options = connections.settings[self.alias].setdefault("OPTIONS", {})
        wanted = keepalive_within(seconds)
        options.setdefault("tcp_user_timeout", wanted.pop("user_timeout"))
        for name, value in wanted.items():
            options.setdefault(f"keepalives_{name}", value)

    def later(self, seconds: str) -> str:
        return f"statement_timestamp() + ({seconds}) * interval '1 second'"

    def until(self, time: str) -> str:
        return f"EXTRACT(EPOCH FROM ({time}) - statement_timestamp())"

    def utc(self, expression: str) -> str:
        return f"""(CASE WHEN ({expression}) >= '0001-01-01 00:00:00+00'
            AND ({expression}) < '9999-12-31 23:59:59+00'
            THEN ({expression}) END AT TIME ZONE 'UTC')"""

    def to_time(self, value: datetime | None) -> Any:
        return value

    # -- producing -----------------------------------------------------------------

    def _statement(self, tasks: Sequence[NewTask]) -> tuple[str, list[Any]]:
        if len(tasks) == 1:
            return super()._statement(tasks)
        columns = zip(*map(_values, tasks), strict=True)
        return self.sql(INSERT_MANY), [list(column) for column in columns]

    # -- working -------------------------------------------------------------------

    def _cycle(
        self, worker_id: str, outcomes: Sequence[Outcome], demand: Demand | None
    ) -> Cycle:
        if self._can_pipeline and all(map(is_success, outcomes)):
            return self._one_trip(worker_id, outcomes, demand)
        return super()._cycle(worker_id, outcomes, demand)

    @property
    def _can_pipeline(self) -> bool:
        connection = self.connection
        if not is_psycopg3 or connection.in_atomic_block:
            return False
        return bool(psycopg.Pipeline.is_supported())

    def _one_trip(
        self, worker_id: str, outcomes: Sequence[Outcome], demand: Demand | None
    ) -> Cycle:
        """Complete and claim in one round trip, which is one transaction."""
        with self._pipeline() as send:
            send(PLANS, {})
            done = claim = None
            if outcomes:
                reach("complete.before")
                done = send(COMPLETE, _of_outcomes(worker_id, outcomes))
                reach("complete.before_commit")
            if demand and demand.limit > 0:
                reach("claim.before")
                claim = send(*_claim_statement(worker_id, demand))
                reach("claim.after_update")
        stale = _stale(outcomes, done.fetchone()[0]) if done else []
        return Cycle(list(map(as_claimed, claim.fetchall())) if claim else [], stale)

    @contextmanager
    def _pipeline(self) -> Iterator[Send]:
        """Send statements together; they wait for their answers at the end.

        Outside a transaction they are one: it ends where the pipeline ends.
        """
        with self._preparing() as raw, raw.pipeline():

            def send(template: str, params: dict[str, Any]) -> Any:
                return psycopg.Cursor(raw).execute(self.sql(template), params)

            yield send

    @contextmanager
    def _preparing(self) -> Iterator[Any]:
        """Yield the driver's connection; it prepares unless a pooler is between.

        For cursors of its own: those of Django put the values into the text.
        """
        connection = self.connection
        connection.ensure_connection()
        raw = connection.connection
        before = raw.prepare_threshold
        try:
            with connection.wrap_database_errors:
                raw.prepare_threshold = self._threshold(raw)
                yield raw
        finally:
            raw.prepare_threshold = before

    def _threshold(self, raw: Any) -> int | None:
        """Return from which use on a statement is prepared; None for never.

        Behind a pooler another session may know another statement by the same name.
        """
        settings = self.connection.settings_dict
        if "prepare_threshold" in settings["OPTIONS"]:
            given: int | None = settings["OPTIONS"]["prepare_threshold"]
            return given
        if settings.get("DISABLE_SERVER_SIDE_CURSORS"):
            return None
        if raw not in self._is_direct:
            # A pooler makes up the number by which a client may cancel a statement.
            answer = psycopg.Cursor(raw).execute("SELECT pg_backend_pid()").fetchone()
            self._is_direct[raw] = answer == (raw.info.backend_pid,)
        return 0 if self._is_direct[raw] else None

    def run_many(self, template: str, rows: Sequence[Sequence[Any]]) -> int:
        if not is_psycopg3:  # psycopg2 counts the rows of the last one only
            return sum(self.run(template, row) for row in rows)
        if len(rows) < WORTH_PREPARING:
            return super().run_many(template, rows)
        with self._preparing() as raw:
            psycopg.Cursor(raw).execute(self.sql(PLANS))
            cursor = psycopg.Cursor(raw)
            cursor.executemany(self.sql(template), rows)
            return cursor.rowcount

    def _complete(self, worker_id: str, outcomes: Sequence[Outcome]) -> list[str]:
        successes = list(filter(is_success, outcomes))
        others = [outcome for outcome in outcomes if not is_success(outcome)]
        stale = super()._complete(worker_id, others) if others else []
        if successes:
            row = self.rows(COMPLETE, _of_outcomes(worker_id, successes))[0]
            stale += _stale(successes, row[0])
        return stale

    def _claim(self, worker_id: str, demand: Demand) -> list[ClaimedTask]:
        rows = self.rows(*_claim_statement(worker_id, demand))
        return list(map(as_claimed, rows))

    def promote(self, limit: int = 5000) -> int:
        return self.run(PROMOTE, [limit])

    # -- wake-up -------------------------------------------------------------------

    def notify(self) -> None:
        if not conf().NOTIFY:
            return
        if self.connection.in_atomic_block:
            # Inside, the commits of all who notify would wait for each other.
            transaction.on_commit(self._notify, using=self.alias, robust=True)
        else:
            self._notify()

    def _notify(self) -> None:
        if self.connection.in_atomic_block:
            return  # a test case that plays the commit: nobody outside sees anything
        try:
            self.rows(NOTIFY)
        except Exception:  # a hint only: the poll finds everything
            events.log(
                logger,
                logging.WARNING,
                "notify_failed",
                exc_info=True,
                alias=self.alias,
            )


def _values(task: NewTask) -> tuple[Any, ...]:
    """Return a task as a row of ``INSERT_MANY``."""
    return (
        task.id,
        task.name,
        task.queue_name,
        -task.priority,
        task.args,
        task.kwargs,
        task.summary,
        task.max_attempts,
        task.time_limit,
        task.metadata,
        task.headers,
        task.expires,
        task.expires_in,
        task.run_after,
        task.delay,
    )


def _of_outcomes(worker_id: str, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return the parameters of ``COMPLETE``."""
    started, finished, prune_in = zip(*success_times(outcomes), strict=True)
    return {
        "worker": worker_id,
        "count": len(outcomes),
        "ids": [outcome.id for outcome in outcomes],
        "leases": [outcome.lease for outcome in outcomes],
        "values": [outcome.return_value for outcome in outcomes],
        "logs": [outcome.log for outcome in outcomes],
        "metadata": [outcome.metadata for outcome in outcomes],
        "started": list(started),
        "finished": list(finished),
        "prune_in": list(prune_in),
    }


def _stale(outcomes: Sequence[Outcome], accepted: list[str] | None) -> list[str]:
    """Return whose leases were over; ``accepted`` is None when all were accepted."""
    if accepted is None:
        return []
    return [outcome.id for outcome in outcomes if outcome.id not in accepted]


def _claim_statement(worker_id: str, demand: Demand) -> tuple[str, dict[str, Any]]:
    queues = list(dict.fromkeys(demand.queues))
    params: dict[str, Any] = {"worker": worker_id, "limit": demand.limit}
    if not queues:
        return CLAIM_ANY, {**params, "exclude": list(demand.exclude)}
    if len(queues) == 1:
        return CLAIM_ONE, {**params, "queue": queues[0]}
    claim = CLAIM_STRICT if demand.is_strict else CLAIM_MERGED
    return claim, {**params, "queues": queues}
