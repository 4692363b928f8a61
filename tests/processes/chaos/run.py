"""A run from its start to its verdict."""

from __future__ import annotations

import random
import time
from typing import Any

from django.core.management import call_command
from django.db import connection

from django_jobs.models import Task
from tests.processes.chaos import leftovers
from tests.processes.chaos.faults.base import Fault
from tests.processes.chaos.faults.servers import LongAway
from tests.processes.chaos.journal import Strike
from tests.processes.chaos.plan import Step, make_plan
from tests.processes.chaos.report import Report
from tests.processes.chaos.site import Site
from tests.processes.chaos.triggers import note_what_is_pruned
from tests.processes.chaos.watcher import Watcher

#: Seconds in which every worker must do something once there are no more faults, and
#: then in which all tasks must be done.
REST = 60.0


class Run:
    """Strikes, heals, and comes to a verdict."""

    def __init__(
        self,
        site: Site,
        faults: list[type[Fault]],
        seconds: float,
        seed: str,
        away: float = 0.0,
        floors: dict[str, int] | None = None,
    ) -> None:
        self.floors = floors or {}
        self.site = site
        self.journal = site.journal
        for fault in faults:
            if why := fault.why_not(site):
                site.left_out[why].append(fault.name())
        able = [fault for fault in faults if not fault.why_not(site)]
        away = 0.0 if LongAway.why_not(site) else away
        self.seconds = seconds
        self.plan = make_plan(able, seconds, seed, away)
        #: Faults that go on while others strike: until when, the fault, its strike.
        self.background: list[tuple[float, Fault, Strike]] = []
        self.report = Report(site)

    def run(self) -> dict[str, Any]:
        """Return the verdict."""
        call_command("migrate", run_syncdb=True, verbosity=0)
        note_what_is_pruned()
        self.site.build()
        self._introduce()
        self.site.start()
        self.at_start = leftovers.holdings(self.site)
        watcher = Watcher(self.journal)
        watcher.start()
        try:
            self._break()
            self._rest()
        finally:
            watcher.close()
        self._stop()
        self.report.judge(watcher, self.seconds, self.floors)
        return self.report.write()

    def _introduce(self) -> None:
        for why, names in self.site.left_out.items():
            self.journal.say(f"left out, as {why}: {', '.join(names)}")
        self.journal.say("plan: " + ", ".join(map(str, self.plan)))

    # -- faults ----------------------------------------------------------------------

    def _break(self) -> None:
        until = time.monotonic() + self.seconds
        half = time.monotonic() + self.seconds / 2
        for step in self.plan:
            if time.monotonic() > until:
                break
            self._heal_background(time.monotonic())
            self._strike(step)
            if time.monotonic() > half:
                half = until
                self.site.prune()
        self.site.wait(until - time.monotonic())
        self._heal_background(float("inf"))

    def _strike(self, step: Step) -> None:
        fault = step.fault(self.site, random.Random(step.seed))
        self.journal.say(f"strike {step}")
        self.site.wait(step.before)
        strike = self.journal.begin(fault.record)
        strike.began = time.monotonic()
        fault.strike()
        if fault.is_background:
            healing = time.monotonic() + step.lasts
            self.background.append((healing, fault, strike))
        else:
            if not step.lasts:
                strike.reached = time.monotonic()
            self._go_through(step)
            self._heal(fault, strike)
        self.site.wait(step.pause)

    def _go_through(self, step: Step) -> None:
        """Let time go by while a fault is on, maybe with another one in the middle."""
        if step.second is None:
            self.site.wait(step.lasts)
            return
        self.site.wait(step.lasts / 2)
        self._strike(Step(step.second, step.seed + " second", 0.0, step.lasts / 2))

    @staticmethod
    def _heal(fault: Fault, strike: Strike) -> None:
        fault.heal()
        strike.ended = time.monotonic()
        strike.reached = min(strike.reached, strike.ended)
        fault.look_back()

    def _heal_background(self, now: float) -> None:
        due = [each for each in self.background if each[0] <= now]
        self.background = [each for each in self.background if each[0] > now]
        for _, fault, strike in due:
            self._heal(fault, strike)

    # -- rest ------------------------------------------------------------------------

    def _rest(self) -> None:
        """End the producers, and let the workers finish what there is.

        Not before each of them has done something: none may be up and do nothing.
        """
        self.journal.say("rest")
        connection.close()  # it may be one of those that were cut
        begin = time.monotonic()
        self.site.wait_for(lambda: not self.site.idle_since(begin), REST)
        self.report.note("idle_at_rest", sorted(self.site.idle_since(begin)))
        problems = [producer.close(30) for producer in self.site.producers]
        self.report.note("bad_stops", problems)
        if not self.site.wait_for(lambda: not Task.objects.exists(), REST):
            left = Task.objects.values_list("id", "name", "state", "worker_id")[:20]
            self.report.note("not_finished", [" ".join(map(str, row)) for row in left])
        self.site.prune()
        self.report.note("growth", leftovers.growth(self.site, self.at_start))
        self.report.note("crowds", leftovers.crowds(self.site))

    def _stop(self) -> None:
        self.journal.say("stop")
        self.report.note("bad_stops", [host.close(30) for host in self.site.hosts])
        names = [*self.site.hosts, *self.site.producers]
        accidents = [accident for each in names for accident in each.accidents]
        self.report.note("accidents", accidents)
        connection.close()
        self.report.note("left_after_stop", leftovers.after_stop(self.site))
        self.report.note("damage", leftovers.damage(self.site))
