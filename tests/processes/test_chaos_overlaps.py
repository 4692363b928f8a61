"""The checker sees two leases at a time, and a host that only looks alive."""

from __future__ import annotations

from typing import Any

import pytest

from tests.processes.chaos.hosts import Death
from tests.processes.chaos.journal import Strike
from tests.processes.chaos.ledger import Ledger
from tests.processes.doctored import (
    ENQUEUED,
    LEASE_LOST,
    SECOND,
    found,
    hit,
    journal,
    ledger,
    produced,
    row,
    run,
)

#: Begun by others while it is still run.
OVERLAP = [
    *(run("start", time=2.0), run("end", time=12.0)),
    *(run("start", lease=2, attempt=2, host="worker2", time=9.0),),
    *(run("end", lease=2, attempt=2, host="worker2", time=9.5),),
]
#: Begun when the others had done it.
AFTERWARDS = [
    *(run("start", time=10.0), run("end", time=11.0)),
    *OVERLAP[2:],
]


def overlap(lines: list[Any], *strikes: Strike, **more: Any) -> Ledger:
    values = {"rows": [SECOND], "records": LEASE_LOST, "journal": journal(*strikes)}
    return ledger(*ENQUEUED, *lines, **values | more)


@pytest.mark.parametrize("lines", [OVERLAP, AFTERWARDS])
@pytest.mark.parametrize(
    ("is_excused", "strike"),
    [
        (True, hit("worker1", began=2.5, ended=11.5, is_blinding=True)),
        (False, hit("worker1", began=2.5, ended=11.5)),
        (False, hit("worker2", began=2.5, ended=11.5, is_blinding=True)),
        (False, hit("worker1", began=2.5, ended=8.0, is_blinding=True)),
        (False, hit(began=2.5, ended=11.5, is_outage=True)),
    ],
    ids=["stopped", "partition", "another", "woken before", "outage"],
)
def test_only_who_is_stopped_may_run_under_a_lease_that_is_over(
    lines: list[Any], is_excused: bool, strike: Strike
) -> None:
    assert ("overlapping_leases" in found(overlap(lines, strike))) is not is_excused


def test_who_is_killed_may_take_a_moment_to_die() -> None:
    def killed(at: float) -> Ledger:
        death = Death("worker1", 1, "10", at, is_whole=True)
        return overlap([OVERLAP[0], *(OVERLAP[2:]), late], deaths=[death])

    late = run("end", time=9.7)
    assert found(killed(8.0)) == {}
    assert "overlapping_leases" in found(killed(7.0))
    assert "overlapping_leases" in found(killed(9.2))


def test_a_host_is_found_that_does_nothing_while_others_do() -> None:
    def all_lines(gap: float) -> list[Any]:
        lines: list[Any] = []
        for number in range(100):
            key, at = f"k{number}", 2.0 + number * gap / 98
            lines += [produced("try", key, due=at), produced("ack", key, time=at)]
            host = "worker1" if number in (0, 99) else "worker2"
            lines += [
                run("start", key, host=host, time=at),
                run("end", key, host=host, time=at),
            ]
        return lines

    rows = [row(f"k{number}") for number in range(100)]
    assert "idle_hosts" in found(ledger(*all_lines(30.0), rows=rows))
    assert found(ledger(*all_lines(9.0), rows=rows)) == {}
    slow = ledger(*all_lines(25.0), rows=rows, second=3.0)
    assert found(slow) == {}
    pause = hit("worker1", began=5.0, ended=17.0)
    assert found(ledger(*all_lines(30.0), rows=rows, journal=journal(pause))) == {}
    elsewhere = hit("worker2", began=5.0, ended=17.0)
    struck = ledger(*all_lines(30.0), rows=rows, journal=journal(elsewhere))
    assert "idle_hosts" in found(struck)
