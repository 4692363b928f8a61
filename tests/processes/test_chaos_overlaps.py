"""The checker sees two leases at a time, and a host that only looks alive."""

from __future__ import annotations

from typing import Any

import pytest

from tests.processes.chaos.hosts import Death
from tests.processes.chaos.journal import Harm, Strike
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


def busy(gap: float, **more: Any) -> Ledger:
    """Return 200 tasks, of which the first and the last are not worker2's."""
    lines: list[Any] = []
    for number in range(200):
        key, at = f"k{number}", 2.0 + number * gap / 199
        host = "worker1" if number in (0, 199) else "worker2"
        lines += [produced("try", key, due=at), produced("ack", key, time=at)]
        lines += [run(event, key, host=host, time=at) for event in ("start", "end")]
    return ledger(*lines, rows=[row(f"k{number}") for number in range(200)], **more)


@pytest.mark.parametrize(
    ("is_excused", "strike"),
    [
        (True, hit("worker1", began=1.5, ended=6.0)),
        (False, hit("worker2", began=1.5, ended=6.0)),
        (False, hit(began=1.5, ended=6.0)),
        (False, hit("worker1", began=1.5, ended=2.5)),
        (False, hit("worker1", began=1.5, ended=6.0, harm=Harm.VICTIMS)),
    ],
    ids=["its own", "another", "of all", "over", "a child"],
)
def test_a_host_is_found_that_does_nothing_while_others_do(
    is_excused: bool, strike: Strike
) -> None:
    assert (
        "idle_hosts" in found(busy(10.0, journal=journal(strike)))
    ) is not is_excused


def test_who_is_gone_does_nothing() -> None:
    assert found(busy(4.5)) == {}
    assert "idle_hosts" in found(busy(5.5))
    gone = journal()
    gone.downs = {"worker1": [(3.0, 8.0)]}
    assert found(busy(12.0, journal=gone)) == {}
    gone.downs = {"worker1": [(3.0, 4.0)]}
    assert "idle_hosts" in found(busy(12.0, journal=gone))
