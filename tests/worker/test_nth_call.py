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
import sys
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
from tests.faults import Faults, Mode, every, modes, troubles
from tests.statements import Call, watched
from tests.worker import aftermath, life
from tests.worker.aftermath import WELL, WELL_AND_ATOMIC, WELL_AT_SECOND
from tests.worker.inprocess import (
    InProcessWorker,
    close_coroutine_connections,
    short_pauses,
)
from tests.worker.life import Application, Life
from tests.worker.parts import wait_for

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.faults]

MOST_ALIKE = int(os.environ.get("DJANGO_JOBS_TEST_CALLS_ALIKE", "1"))
#: For how many seconds calls fail again and again, and how many at least.
STORM = 2.0
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
    with short_pauses(), override_settings(DJANGO_JOBS=life.SETTINGS):
        yield
    life.forget()


class EachCall:
    """Means each call of a life, in one life after the other.

    Threads race: the n-th call is not the same one in every life. So a call is known
    by the thread that makes it, by what it says and by what that thread said before,
    and of the calls that were not struck yet the first one is meant.
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
        kind = (thread.rstrip("-_0123456789"), self._before.get(thread), says)
        self._before[thread] = says
        self._alike[kind] += 1
        this = (*kind, self._alike[kind])
        if self._is_over or self._alike[kind] > MOST_ALIKE or this in self._struck:
            return False
        self._struck.add(this)
        self._is_over = True
        return True


def _without_values(text: str) -> str:
    return re.sub(r"'[^']*'|[\d\s]|%s|\?|,", "", text)


@contextmanager
def logged() -> Iterator[list[Any]]:
    """Keep the events of the package."""
    records: list[Any] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
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
    capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> StrikeEach:
    def strike(mode: Mode, faults: Faults, live: Live) -> None:
        began, each, words = time.monotonic(), EachCall(), set[str]()
        for lives in itertools.count(1):
            each.begin()
            faults.arm(troubles(mode), each)
            try:
                _assert_nothing(live())
            except BaseException as error:
                error.add_note("\n".join(map(str, [f"life {lives}", *faults.struck])))
                raise
            life.forget()
            if not faults.struck:
                break
            words |= {one.trouble.words for one in faults.struck}
        assert words == {trouble.words for trouble in troubles(mode)}
        seconds = time.monotonic() - began
        told = f"{request.node.name}: {lives} lives in {seconds:.1f} s"
        with capsys.disabled():
            sys.stdout.write(f"\n{connection.vendor}, {told}\n")

    return strike


def _assert_nothing(wrong: Iterable[str]) -> None:
    lines = list(wrong)
    assert not lines, "\n".join(lines)


@each_mode
def test_every_call_of_a_life_cycle_may_fail(
    mode: Mode, strike_each: StrikeEach
) -> None:
    faults = Faults()
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
            yield from aftermath.of_life(one.ids, faults.struck, log)
            if missing := worker.missing_threads():
                yield f"the threads {missing} have ended"

        strike_each(mode, faults, live)
        worker.wait_for_heartbeat()


@each_mode
def test_every_call_of_a_start_and_a_stop_may_fail(
    mode: Mode, strike_each: StrikeEach
) -> None:
    faults = Faults()
    with logged() as log, watched(faults), Application() as application:
        close_coroutine_connections()
        threads = set(threading.enumerate())

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
            # While a call has failed nobody waits long for those that listen.
            wait_for(lambda: threads.issuperset(threading.enumerate()))
            if Worker.objects.exists():
                yield "the row of the worker is left"

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
