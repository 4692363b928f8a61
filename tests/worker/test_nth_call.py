"""Every call that is made of the database fails once, in every way in which it can.

In one life cycle after the other, until one runs to its end without a fault. What must
hold after each is in ``aftermath``. ``DJANGO_JOBS_TEST_CALLS_ALIKE`` is how many calls
of a life that look alike are failed, in lives of their own; one unless it is set.
"""

from __future__ import annotations

import itertools
import logging
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import connection, connections
from django.test import override_settings

from django_jobs import enqueue_many
from django_jobs.models import Task, Worker
from django_jobs.worker import reconciling
from tests.faults import Faults, Mode, every, modes, troubles
from tests.statements import Call, is_in_transaction, watched
from tests.worker import aftermath, life
from tests.worker.aftermath import WELL, WELL_AND_ATOMIC, WELL_AT_SECOND
from tests.worker.belongings import Belongings
from tests.worker.inprocess import (
    InProcessWorker,
    close_coroutine_connections,
    short_pauses,
)
from tests.worker.life import Application, Life
from tests.worker.parts import wait_for

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.faults,
    pytest.mark.matrix(whole="sqlite"),
]

MOST_ALIKE = int(os.environ.get("DJANGO_JOBS_TEST_CALLS_ALIKE", "1"))
#: For how many seconds calls fail again and again, and how many at least.
STORM = 1.0
LEAST_STRUCK = 50
#: Seconds between two handfuls of tasks meanwhile.
PACE = 0.03

each_mode = pytest.mark.parametrize("mode", modes())


@pytest.fixture(autouse=True)
def _in_no_time(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    options = dict(connection.settings_dict["OPTIONS"])
    if connection.vendor == "postgresql":
        # What is committed here has to outlive no crash of the server.
        options["options"] = "-c synchronous_commit=off"
    monkeypatch.setitem(connections.settings["default"], "OPTIONS", options)
    # It must not take for lost what only is on its way.
    monkeypatch.setattr(reconciling, "LONGEST_PAUSE", 0.02)
    with short_pauses(), override_settings(DJANGO_JOBS=life.SETTINGS):
        yield
    life.forget()


class EachCall:
    """Means each call of a life, in one life after the other.

    Threads race: the n-th call is not the same one in every life. So a call is known
    by the thread that makes it, by what it says and by what that thread said before it
    in the same transaction, and of those that were not struck yet the first is meant.
    """

    def __init__(self) -> None:
        self._struck: set[object] = set()
        self.begin()

    def begin(self) -> None:
        """Begin the next life."""
        self._before: dict[str, object] = {}
        self._alike: Counter[object] = Counter()
        self._is_over = False

    def __call__(self, call: Call, count: int) -> bool:
        thread = threading.current_thread().name
        says = (call.verb, _without_values(call.text))
        before = self._before.get(thread) if is_in_transaction(call) else None
        kind = (thread.rstrip("-_0123456789"), before, says)
        self._before[thread] = says
        self._alike[kind] += 1
        this = (*kind, self._alike[kind])
        if self._is_over or self._alike[kind] > MOST_ALIKE or this in self._struck:
            return False
        self._struck.add(this)
        self._is_over = True
        return True


#: What differs from life to life: texts, numbers, and which values are there at all.
_VALUES = re.compile(
    r"'(?:[^'\\]|\\.)*'|-?\d+(?:\.\d+)?(?:e[-+]?\d+)?|\bNULL\b|%s|\?|,|\s"
)
#: Rows of VALUES, however many there are.
_ROWS = re.compile(r"(?:\(\))+")


def _without_values(text: str) -> str:
    return _ROWS.sub("()", _VALUES.sub("", text))


@contextmanager
def logged() -> Iterator[list[Any]]:
    """Keep the events of the package."""
    records: list[Any] = []
    handler, formatter = logging.Handler(), logging.Formatter()

    def emit(record: Any) -> None:
        if record.exc_info:
            # As a text: frames hold what the worker has dropped.
            record.exc_text = formatter.formatException(record.exc_info)
            record.exc_info = None
        records.append(record)

    handler.emit = emit  # type: ignore[method-assign]
    logger = logging.getLogger("django_jobs")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield records
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


Live = Callable[[], Iterable[str]]
#: Fails each call of a life, in a life of its own, and looks what does not hold then.
StrikeEach = Callable[[Mode, Faults, Live], None]


@pytest.fixture
def strike_each(
    record_property: Callable[[str, object], None], request: pytest.FixtureRequest
) -> StrikeEach:
    def strike(mode: Mode, faults: Faults, live: Live) -> None:
        each, words, seconds = EachCall(), set[str](), dict[str, float]()
        while True:
            each.begin()
            faults.arm(troubles(mode), each)
            began = time.monotonic()
            try:
                _assert_nothing(live())
            except BaseException as error:
                notes = [f"life {len(seconds) + 1}", *map(str, faults.struck)]
                error.add_note("\n".join(notes))
                raise
            life.forget()
            if not faults.struck:
                break
            [struck] = faults.struck
            words.add(struck.trouble.words)
            seconds[f"{len(seconds) + 1}, {struck}"] = time.monotonic() - began
        assert words == {trouble.words for trouble in troubles(mode)}
        record_property("figure", f"{request.node.name}: {_in_short(seconds)}")

    return strike


def _in_short(seconds: dict[str, float]) -> str:
    """Return how many lives there were, how long they took, and the slowest of them."""
    slowest = max(seconds, key=seconds.__getitem__)
    return (
        f"{len(seconds)} lives in {sum(seconds.values()):.1f} s; "
        f"{seconds[slowest]:.1f} s: {slowest}"
    )


def _assert_nothing(wrong: Iterable[str]) -> None:
    lines = list(wrong)
    assert not lines, "\n".join(lines)


@each_mode
def test_every_call_of_a_life_cycle_may_fail(
    mode: Mode, strike_each: StrikeEach
) -> None:
    close_coroutine_connections()
    faults, before = Faults(), Belongings()
    with (
        logged() as log,
        watched(faults),
        Application() as application,
        InProcessWorker(threads=2) as worker,
    ):

        def live() -> Iterable[str]:
            log.clear()
            one = Life(worker, application)
            one.live()
            faults.disarm()
            worker.wait_until_idle()
            yield from aftermath.of_life(one.ids, faults.struck, log)
            yield from aftermath.of_threads(worker)

        strike_each(mode, faults, live)
        worker.wait_for_heartbeat()
    _assert_nothing(before.more())


@each_mode
def test_every_call_of_a_start_and_a_stop_may_fail(
    mode: Mode, strike_each: StrikeEach
) -> None:
    faults = Faults()
    with logged() as log, watched(faults), Application() as application:
        close_coroutine_connections()
        before = Belongings()

        def live() -> Iterable[str]:
            log.clear()
            with InProcessWorker(threads=1):
                application.enqueue(lambda: life.succeed.enqueue("single"))
                wait_for(lambda: not Task.objects.exists())
            faults.disarm()
            (new,) = life.sent.values()
            yield from aftermath.of_task("single", new.id, WELL, faults.struck, log)
            yield from aftermath.of_tables({new.id}, faults.struck, log)
            yield from aftermath.of_events(faults.struck, log)
            if Worker.objects.exists():
                yield "the row of the worker is left"
            application.disconnect()
            yield from before.more()

        strike_each(mode, faults, live)


@pytest.mark.parametrize("number", [2, 3, 5, 7])
def test_calls_may_fail_again_and_again(number: int) -> None:
    faults = Faults()
    often = {"max_attempts": 10_000}
    ends = {}
    with (
        logged() as log,
        watched(faults),
        Application() as application,
        InProcessWorker(threads=2),
    ):
        # It would get nothing in where every second call fails.
        faults.spared.add(application.ident)
        everything = [each for mode in modes() for each in troubles(mode)]
        faults.arm(everything, every(number))
        until = time.monotonic() + STORM
        for count in itertools.count(1):
            if time.monotonic() > until and len(faults.struck) >= LEAST_STRUCK:
                break
            time.sleep(PACE)
            calls = {
                f"single {count}": (life.succeed, WELL),
                f"async {count}": (life.asucceed, WELL),
                f"retried {count}": (life.succeed_at_second, WELL_AT_SECOND),
                f"told {count}": (life.tell, WELL),
                f"written {count}": (life.write, WELL_AND_ATOMIC),
            }
            ends |= {key: end for key, (_, end) in calls.items()}
            application.enqueue(
                lambda calls=calls: enqueue_many(
                    [each.using(**often).s(key) for key, (each, _) in calls.items()]
                )
            )
        faults.disarm()
        wait_for(lambda: not Task.objects.exists())
    ids = {life.key_of(new): new.id for new in life.sent.values()}
    struck = faults.struck
    for key, end in ends.items():
        _assert_nothing(aftermath.of_task(key, ids[key], end, struck, log))
    _assert_nothing(aftermath.of_tables({ids[key] for key in ends}, struck, log))
    _assert_nothing(aftermath.of_events(struck, log))
