"""Processes that are killed, or stopped for a while."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress

from tests.processes.chaos.faults import needs
from tests.processes.chaos.faults.base import Fault
from tests.processes.chaos.guard import start_of
from tests.processes.chaos.hosts import Host, Killing, identity
from tests.processes.chaos.journal import Harm, Strike
from tests.processes.chaos.site import LEASE

#: Seconds that children may outlive their parent on a busy machine.
LINGER = 2.0
#: Seconds without other faults; no task runs for longer unless something is wrong.
CALM = 3.5
#: Seconds in which some worker runs two tasks beside each other.
PATIENCE = 5.0
#: Seconds in which a worker that was paused is at work again, or was killed meanwhile,
#: and then is started again, on a busy machine.
RETURN = 30.0
#: Seconds that a lost host stays away beyond the lease.
REST = 3.0


def is_same(process: tuple[int, str]) -> bool:
    """Does a process live that had this number and this start?"""
    pid, start = process
    return start != "" and start_of(pid) == start


class KillChild(Fault):
    """kill -9 of one process that runs tasks."""

    weight = 4
    harm = Harm.VICTIMS
    aftermath = 1.0

    def strike(self) -> None:
        for host in self._some_hosts():
            if children := host.children():
                self._kill(host, self.random.choice(children), children)

    def _kill(self, host: Host, child: int, children: list[int]) -> None:
        neighbours = [identity(pid) for pid in children if pid != child]
        self.site.killings.append(Killing(host.name, neighbours, time.monotonic()))
        killed = host.kill_child(child)
        self.site.deaths += killed
        self.site.counts["killed_children"] += len(killed)
        self.hit(host.name, times=len(killed))

    def _some_hosts(self) -> list[Host]:
        hosts = self.site.ready_hosts()
        return self.random.sample(hosts, min(len(hosts), self.random.randint(1, 2)))


class KillBesideOthers(KillChild):
    """kill -9 of one process beside another one that runs tasks, with all else calm."""

    weight = 1
    calm = CALM

    def strike(self) -> None:
        self.site.wait_for(self._find, PATIENCE)
        for host, child, children in self._find()[:1]:
            self._kill(host, child, children)

    def _find(self) -> list[tuple[Host, int, list[int]]]:
        """Return who may be killed beside a neighbour that runs something."""
        busy = self.site.busy_processes()
        found = []
        for host in self.site.ready_hosts():
            children = host.children()
            at_work = {pid for pid in children if (host.name, *identity(pid)) in busy}
            found += [(host, pid, children) for pid in children if at_work - {pid}]
        return found


class KillParent(Fault):
    """kill -9 of a worker's parent: its children are to die with it."""

    weight = 2
    harm = Harm.VICTIMS

    def strike(self) -> None:
        if not (hosts := self.site.ready_hosts()):
            return
        host = self.random.choice(hosts)
        # The end of its first process ends a whole namespace.
        self.site.counts["killed_groups"] += host.is_isolated
        children = {pid: start_of(pid) for pid in host.children()}
        self.site.deaths += host.kill()
        self.site.counts["killed_parents"] += 1
        self.hit(host.name)
        died = time.monotonic()

        def are_gone() -> bool:
            return not any(map(is_same, children.items()))

        if not self.site.wait_for(are_gone, LINGER):
            self.site.findings.append(f"children of {host.name} outlived it by 2 s")
        self.site.note_slowest("max_child_outlives_s", time.monotonic() - died)


class KillGroup(Fault):
    """kill -9 of a worker with all its children at once."""

    weight = 2
    harm = Harm.VICTIMS

    def choose(self) -> list[Host]:
        return self.site.ready_hosts()

    def strike(self) -> None:
        hosts = self.choose()
        self.chosen = self.random.sample(hosts, min(1, len(hosts)))
        for host in self.chosen:
            killed = host.kill_all()
            self.site.deaths += killed
            self.site.counts["killed_groups"] += 1
            self.site.counts["killed_parents"] += 1
            self.site.counts["killed_children"] += len(killed) - 1
            self.hit(host.name)


class LoseHost(KillGroup):
    """A whole host is gone, and stays away until the lease of its worker is over."""

    needs = (needs.isolation,)
    weight = 1

    def choose(self) -> list[Host]:
        return [host for host in self.site.ready_hosts() if host.is_isolated]

    def strike(self) -> None:
        super().strike()
        for host in self.chosen:
            host.rest = LEASE + REST


class KillProducer(Fault):
    """kill -9 of a producer, perhaps in the middle of a transaction."""

    harm = Harm.NOBODY

    def strike(self) -> None:
        producers = [each for each in self.site.producers if each.is_up]
        if producers:
            chosen = self.random.choice(producers)
            chosen.kill()
            self.site.counts["killed_producers"] += 1
            self.hit(chosen.name)


class _Pause(Fault):
    """SIGSTOP for a while."""

    counter = "pauses"

    def strike(self) -> None:
        #: On a file with one writer it may be stopped while it writes: then no worker
        #: can renew its lease.
        self.held_lock = Strike(
            "paused_writer", True, time.monotonic(), aftermath=self.aftermath
        )
        self.paused: list[tuple[int, str]] = []
        if hosts := self.site.ready_hosts():
            self.host = host = self.random.choice(hosts)
            for pid in self.choose(host):
                self.paused.append((pid, start_of(pid)))
                self._send(pid, signal.SIGSTOP)
                self.hit(host.name)
            if self.site.server.is_write_locked():
                self.site.journal.begin(self.held_lock)
                self.held_lock.hit()

    def choose(self, host: Host) -> list[int]:
        raise NotImplementedError

    def heal(self) -> None:
        for process in filter(is_same, self.paused):
            self._send(process[0], signal.SIGCONT)
        self.held_lock.ended = self.held_lock.reached = time.monotonic()

    def look_back(self) -> None:
        """See that it is at work again: nothing else strikes until it is."""
        if self.is_blinding and self.paused:
            name, begin = self.host.name, time.monotonic()
            if not self.site.wait_for(
                lambda: name not in self.site.idle_since(begin), RETURN
            ):
                self.site.findings.append(f"{name} did nothing after its pause")
            self.site.note_slowest("max_return_s", time.monotonic() - begin)

    @staticmethod
    def _send(pid: int, number: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


class PauseParent(_Pause):
    """SIGSTOP of a worker's parent beyond its lease, then SIGCONT."""

    lasts = (LEASE - 0.5, LEASE + 3)
    is_blinding = True

    def choose(self, host: Host) -> list[int]:
        return [host.worker]


class PauseChild(_Pause):
    """SIGSTOP of a process that runs tasks, beyond the limits of some, then SIGCONT."""

    lasts = (2, 7)

    def choose(self, host: Host) -> list[int]:
        return host.children()[:1]


class PauseGroup(_Pause):
    """SIGSTOP of a worker with its children beyond its lease, then SIGCONT."""

    lasts = (LEASE - 0.5, LEASE + 3)
    is_blinding = True

    def choose(self, host: Host) -> list[int]:
        return [host.worker, *host.children()]


FAULTS = [
    KillChild,
    KillBesideOthers,
    KillParent,
    KillGroup,
    LoseHost,
    KillProducer,
    PauseParent,
    PauseChild,
    PauseGroup,
]
