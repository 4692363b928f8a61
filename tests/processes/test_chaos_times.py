"""What the chaos says of times: recovery, calm, outages; and of too short a run."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from math import inf
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from django.db import OperationalError

from tests.processes.chaos import tasks
from tests.processes.chaos.faults.kills import PauseParent
from tests.processes.chaos.hosts import STARTED, Death, Host, Killing
from tests.processes.chaos.journal import Harm
from tests.processes.chaos.leftovers import Holdings
from tests.processes.chaos.recovery import (
    figures,
    hurt_neighbours,
    recoveries,
    returns,
)
from tests.processes.chaos.report import fewer, too_little
from tests.processes.chaos.servers import sqlite
from tests.processes.chaos.watcher import Watcher
from tests.processes.doctored import (
    AGAIN,
    ENQUEUED,
    RUN,
    hit,
    journal,
    ledger,
    produced,
    run,
)
from tests.processes.harness import wait_for


@pytest.mark.parametrize(
    ("words", "acked", "hits", "seconds"),
    [
        ("were enqueued", 2, {"reset": 1}, 0),
        ("were enqueued", 50, {"reset": 9}, 100),
        ("nothing struck", 100, {}, 20),
        ("of 2 faults only 0 strikes hit", 100, {"reset": 0, "refuse": 0}, 20),
        ("only 2 strikes hit", 1000, {"reset": 2}, 300),
        ("refuse struck 3 times, and never hit", 1000, {"reset": 9, "refuse": 0}, 20),
    ],
)
def test_a_run_in_which_too_little_happened_says_nothing(
    words: str, acked: int, hits: dict[str, int], seconds: float
) -> None:
    values = {"acked": acked, "finished": acked}
    strikes = dict.fromkeys(hits, 3)
    assert words in " ".join(too_little(values, strikes, hits, seconds))


def test_a_run_in_which_enough_happened_is_worth_something() -> None:
    values = {"acked": 100, "finished": 100}
    assert not list(too_little(values, {"reset": 1}, {"reset": 1}, 20))
    once_in_vain = {"reset": 1, "refuse": 2}, {"reset": 1, "refuse": 0}
    assert not list(too_little(values, *once_in_vain, 20))


def test_a_run_is_worth_nothing_below_the_numbers_that_were_asked_for() -> None:
    counts = {"killed_children": 7}
    assert not list(fewer(counts, {"killed_children": 7}))
    assert list(fewer(counts, {"killed_children": 8})) == [
        "killed_children: 7 of 8 at least"
    ]
    assert list(fewer(counts, {"failovers": 1}))


def test_a_leak_of_a_worker_or_of_its_child_is_growth() -> None:
    start = Holdings(descriptors=20, threads=8, of_a_child=10, processes=4)
    assert not Holdings(24, 9, 22, 5).has_grown(start)
    grown = [(25, 8, 10, 4), (20, 10, 10, 4), (20, 8, 23, 4), (20, 8, 10, 6)]
    assert all(Holdings(*each).has_grown(start) for each in grown)


def test_recovery_is_counted_from_the_death_without_outages() -> None:
    one = ledger(*ENQUEUED, run("start"), *AGAIN)
    outage = hit(is_outage=True, began=4.0, ended=6.0, reached=6.0)
    deaths = [Death("worker1", 7, "70", 1.0), Death("worker1", 7, "70", 3.0)]
    [recovery] = recoveries(one, deaths, journal(outage))
    assert (recovery.died, recovery.again, recovery.seconds) == (3.0, 7.0, 2.0)
    assert list(recoveries(one, deaths[:1], journal(outage))) == []
    namesake = [Death("worker1", 7, "71", 3.0)]
    assert list(recoveries(one, namesake, journal(outage))) == []


def test_what_never_ran_again_has_no_recovery_of_no_time() -> None:
    one = ledger(*ENQUEUED, run("start"), rows=[])
    open_outage = hit(is_outage=True, began=4.0, ended=inf)
    deaths = [Death("worker1", 7, "70", 3.0)]
    [recovery] = recoveries(one, deaths, journal(open_outage))
    assert recovery.seconds == inf


def test_recoveries_are_told_as_they_were_measured() -> None:
    assert figures([]) == {"count": 0}
    assert figures([1.0, 2.0, inf, 9.0]) == {
        "count": 4,
        "median": 2.0,
        "p99": 9.0,
        "max": 9.0,
    }


def test_the_first_completion_after_a_restart_is_of_a_run_begun_since() -> None:
    one = ledger(*ENQUEUED, *RUN, *AGAIN)
    crash = hit(fault="crash_server", began=2.2, ended=2.5, reached=2.5)
    assert list(returns(one, journal(crash, hit("worker2")))) == [5.0]
    assert not list(returns(one, journal(crash, hit(began=2.6, ended=3.0))))
    later = hit(fault="fail_over", began=7.2, ended=7.3, reached=7.3)
    assert list(returns(one, journal(later))) == []


def test_a_neighbour_that_came_to_no_end_is_found_when_all_else_was_calm() -> None:
    one = ledger(*ENQUEUED, run("start", pid=8, born="80"))
    killing = Killing("worker1", [(8, "80")], 2.5)
    strike = hit("worker1", fault="kill_child", harm=Harm.VICTIMS)
    elsewhere = hit("worker2")
    assert list(hurt_neighbours(one, [killing], journal(strike, elsewhere)))
    assert not list(hurt_neighbours(one, [killing], journal(strike, hit())))
    namesake = Killing("worker1", [(8, "81")], 2.5)
    assert not list(hurt_neighbours(one, [namesake], journal(strike)))
    deadly = produced("try", "b", task=tasks.deadly.name)
    shot = ledger(*ENQUEUED, *one.runs, deadly, run("start", "b", time=3.0))
    assert not list(hurt_neighbours(shot, [killing], journal(strike)))
    ended = ledger(*ENQUEUED, *(run(e, pid=8, born="80") for e in ("start", "end")))
    assert not list(hurt_neighbours(ended, [killing], journal(strike)))


class Dead(Watcher):
    """A watcher that is told what the dead hold."""

    held: set[tuple[str, int]] | Exception | None = None
    asked = 0

    def _held_by_the_dead(self) -> set[tuple[str, int]] | None:
        self.asked += 1
        if isinstance(self.held, Exception):
            raise self.held
        return self.held


def test_the_watcher_counts_the_time_without_outages_and_forgets_nothing() -> None:
    watcher = Dead(journal(hit(is_outage=True, began=12.0, ended=14.0, reached=14.0)))
    watcher.held = {("a", 1)}
    watcher.look(9.0, 10.0)
    watcher.look(10.0, 16.0)
    assert watcher.longest == 4.0
    watcher.held = OperationalError("away")
    watcher.look(16.0, 17.0)
    watcher.held = None  # nobody is alive
    watcher.look(17.0, 18.0)
    watcher.held = {("a", 1)}
    watcher.look(18.0, 19.0)
    assert watcher.longest == 5.0


def test_the_watcher_says_when_it_saw_nothing_or_failed() -> None:
    blind, broken = Dead(journal()), Dead(journal())
    broken.held = KeyError("a column")
    for watcher in (blind, broken):
        watcher.held = watcher.held or OperationalError("away")
        watcher.start()
        wait_for(lambda: watcher.asked, 10, "a look")  # noqa: B023
        watcher.close()
    assert any("never had a look" in words for words in blind.problems())
    assert any("a column" in words for words in broken.problems())


class Idle:
    """A site on which only one of two hosts is at work."""

    def __init__(self) -> None:
        self.findings: list[str] = []
        self.slowest: dict[str, float] = {}
        self.journal = journal()
        self.hosts = [Named("busy"), Named("idle")]

    def ready_hosts(self) -> list[Named]:
        return self.hosts

    def idle_since(self, since: float) -> set[str]:
        return {"idle"}

    def wait_for(self, what: Callable[[], object], timeout: float) -> bool:
        return bool(what())

    def note_slowest(self, what: str, seconds: float) -> None:
        self.slowest[what] = seconds


class Named:
    """A host of which nothing runs that could be paused."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.worker = 0


@pytest.mark.parametrize(("name", "count"), [("busy", 0), ("idle", 1)])
def test_a_worker_that_does_nothing_after_its_pause_is_found(
    name: str, count: int
) -> None:
    site = Idle()
    fault = PauseParent(cast("Any", site), random.Random(1))
    fault.paused, fault.host = [(0, "")], cast("Any", Named(name))
    fault.look_back()
    assert len(site.findings) == count


class Sleepers:
    """Starts processes that do nothing, in place of workers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def start(self, command: Any, *, log: Path, env: Any) -> subprocess.Popen[bytes]:
        log.touch()
        return subprocess.Popen(["sleep", "60"], start_new_session=True)


def test_who_was_killed_is_gone_until_its_successor_is_ready(tmp_path: Path) -> None:
    sleepers = Sleepers(tmp_path)
    host = Host(cast("Any", sleepers), "worker1", ["sleep"], {})
    host.start()
    host.log.write_text(STARTED)
    host.rest = 0.0
    killed = host.process
    host.kill_all()
    host.process = dying = sleepers.start([], log=host.log, env={})
    host.look_after(1.0)
    assert host.downs[-1][1] == inf
    dying.kill()
    for process in (killed, dying):
        assert process is not None
        process.wait()
    wait_for(lambda: (host.look_after(2.0), host.generation == 2)[1], 10, "its start")
    host.look_after(3.0)
    assert host.downs[-1][1] == inf
    host.log.write_text(STARTED)
    host.look_after(4.0)
    assert [end for _, end in host.downs] == [4.0]
    host.kill_all()
    assert host.process is not None
    host.process.wait()


@pytest.mark.parametrize("is_locked", [False, True])
def test_who_is_stopped_while_it_writes_to_a_file_cuts_all_workers_off(
    is_locked: bool,
) -> None:
    done = journal()
    site = SimpleNamespace(
        journal=done,
        counts=Counter[str](),
        ready_hosts=lambda: [Named("worker1")],
        server=SimpleNamespace(is_write_locked=lambda: is_locked),
    )
    fault = PauseParent(cast("Any", site), random.Random(1))
    fault.choose = lambda host: []  # type: ignore[method-assign]
    begin = time.monotonic()
    fault.strike()
    fault.heal()
    end = time.monotonic()
    felt = [*done.touching("worker2", begin, end, Harm.HOSTS)]
    assert [each.fault for each in felt] == ["paused_writer"] * is_locked
    assert (done.away(begin, end) > 0) is is_locked


def test_a_file_tells_whether_anybody_can_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "mount_small", lambda folder, size: folder.mkdir())
    monkeypatch.setattr(sqlite, "LOCKED", 0.05)
    server = sqlite.SQLite(cast("Any", SimpleNamespace(folder=tmp_path)))
    assert not server.is_write_locked()
    with closing(sqlite3.connect(server.path, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        assert server.is_write_locked()
    assert not server.is_write_locked()
