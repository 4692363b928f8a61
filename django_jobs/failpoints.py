"""Named points in the life of a task at which a test can have something break.

Nothing happens at them unless ``DJANGO_JOBS_FAILPOINTS`` is set when the process
starts: ``claim.after_commit=kill9; child.mid_run=sleep(2)@3,once=/run/marker``.
"""

from __future__ import annotations

import difflib
import errno
import itertools
import logging
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from types import MappingProxyType

from django.core.exceptions import ImproperlyConfigured
from django.db import connections

from django_jobs import events

logger = logging.getLogger("django_jobs")

#: The variable of the environment that says what breaks where.
VARIABLE = "DJANGO_JOBS_FAILPOINTS"
#: Every point, and what is and is not done when a process has reached it.
POINTS: Mapping[str, str] = MappingProxyType(
    {
        # In the process that enqueues.
        "enqueue.before_insert": "the tasks are checked, nothing is written",
        "enqueue.after_insert": "the tasks are written, in the open transaction if any",
        "enqueue.after_commit": "the tasks are committed, nobody is told",
        "enqueue.deferred": "what the tasks waited for is committed, they are not yet",
        # In the parent of the worker.
        "register.before": "the worker is not in its table",
        "register.after": "the worker is in its table and does not work yet",
        "heartbeat.before": "the lease is to be renewed",
        "heartbeat.after": "the lease is renewed, the worker does not know it",
        "claim.before": "the worker asks for tasks",
        "claim.after_update": "the tasks are claimed, the claim is not committed",
        "claim.after_commit": "the claim is committed, the worker does not know it",
        "dispatch.before_send": "tasks are assigned to a child that has not got them",
        "dispatch.after_send": "tasks are on their way to a child",
        "complete.received": "an outcome has come, it is in the parent's memory only",
        "complete.before": "outcomes are to be written",
        "complete.after_insert": "results or dead letters are written beside the tasks",
        "complete.before_commit": "the tasks are moved, the move is not committed",
        "complete.after_commit": "the move is committed, the worker does not know it",
        "promote.before": "tasks are due that are not ready",
        "promote.after": "due tasks are ready, nobody is told",
        "rescue.before": "the worker looks for the tasks of dead ones",
        "rescue.mid": "tasks are taken back, their dead worker is not forgotten",
        "rescue.after": "tasks are taken back and committed",
        "prune.before": "the worker deletes what is past its retention",
        "prune.mid": "attempts are deleted, their results are not",
        "prune.after": "results and their attempts are deleted and committed",
        "shutdown.draining": "nothing new is claimed, running tasks go on",
        "shutdown.interrupting": "running tasks were asked to leave",
        "shutdown.killing": "the processes of what runs are to be killed",
        "shutdown.flushing": "nothing runs, outcomes may not be written",
        "shutdown.signing_off": "outcomes are written, the worker is in its table",
        # In a child.
        "child.before_ready": "the child is set up, the parent does not know it",
        "child.received": "tasks have come and wait for a slot",
        "child.before_run": "the task is prepared, nobody is told",
        "child.mid_run": "the function has returned, middleware and limits go on",
        "child.after_run": "the outcome is decided and announced",
        "child.before_send": "the outcome is in the child's memory only",
        "child.after_send": "the outcome is on its way to the parent",
        "atomic.before_complete": "the task has written, it is not completed",
        "atomic.after_complete": "the task is completed, nothing is committed",
        "atomic.after_commit": "the task and its completion are committed",
    }
)
#: What can happen at a point.
ACTIONS: Mapping[str, str] = MappingProxyType(
    {
        "kill9": "SIGKILL",
        "stop": "SIGSTOP, until somebody sends SIGCONT",
        "segfault": "SIGSEGV, as after an error in a C extension",
        "exit": "the process ends at once, with status 0",
        "raise": "`FailpointReached` is raised",
        "oserror": "`OSError` (EIO) is raised",
        "dbdrop": "the connection of this thread to a database is cut",
        "sleep": "this thread waits for so many seconds",
    }
)
#: Whom a signal can be sent to.
TARGETS: Mapping[str, str] = MappingProxyType(
    {
        "self": "the process that reaches the point",
        "parent": "the parent of the worker; elsewhere the process itself",
        "child": "all children of the worker; of a child that one alone",
    }
)

_SIGNALS = {"kill9": "SIGKILL", "stop": "SIGSTOP", "segfault": "SIGSEGV"}
_RULE = re.compile(
    r"(?P<point>[^=]*)=(?P<action>[^(:@,]*)(?:\((?P<argument>[^()]*)\))?"
    r"(?::(?P<target>[^@,]*))?(?:@(?P<nth>[^,]*))?(?:,once=(?P<once>.*))?"
)
_FORM = "POINT=ACTION[(ARGUMENT)][:TARGET][@NTH][,once=PATH]"


class FailpointReached(Exception):
    """What the action ``raise`` raises."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What happens at a point, to whom and when."""

    point: str
    action: str
    argument: str = ""
    target: str = "self"
    #: Only when this process reaches the point for the n-th time; 0 is every time.
    nth: int = 0
    #: Only by the process that can make this file; empty is by every process.
    once: str = ""
    _arrivals: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def database(self) -> str:
        """The alias whose connection is dropped."""
        return self.argument or "default"

    def arrive(self) -> None:
        """Strike, if it is time for that and there is somebody to be struck."""
        if next(self._arrivals) != self.nth and self.nth:
            return
        pids = _pids_of(self.target)
        if not pids or not self._is_first():
            return
        events.log(
            logger,
            logging.WARNING,
            "failpoint",
            point=self.point,
            action=self.action,
            pids=[*map(str, pids)],
        )
        if number := _SIGNALS.get(self.action):
            _send(signal.Signals[number], pids)
        else:
            _DEEDS[self.action](self)

    def _is_first(self) -> bool:
        if not self.once:
            return True
        with suppress(FileExistsError), open(self.once, "x") as marker:
            marker.write(f"{self.point} {self.action} {os.getpid()}\n")
            return True
        return False


# -- reading -----------------------------------------------------------------------


def read(text: str) -> dict[str, list[Rule]]:
    """Return the rules by their points; ValueError says what is wrong with one."""
    rules: dict[str, list[Rule]] = {}
    for each in filter(None, map(str.strip, text.split(";"))):
        rule = _read_one(each)
        rules.setdefault(rule.point, []).append(rule)
    return rules


def _read_one(text: str) -> Rule:
    if (match := _RULE.fullmatch(text)) is None:
        raise ValueError(f"{text!r} is not of the form {_FORM}.")
    point, action, argument, target, nth, once = match.groups()
    if nth is not None and re.fullmatch("[1-9][0-9]*", nth) is None:
        raise ValueError(f"@{nth} is no number from 1 on.")
    if once is not None and not os.path.isdir(os.path.dirname(once)):
        raise ValueError(f"once={once} is no path in a folder that is there.")
    target = "self" if target is None else target
    rule = Rule(point, action, argument or "", target, int(nth or 0), once or "")
    _check_names(rule)
    _check_argument(rule)
    return rule


def _check_names(rule: Rule) -> None:
    for name, kind, known in (
        (rule.point, "point", POINTS),
        (rule.action, "action", ACTIONS),
        (rule.target, "target", TARGETS),
    ):
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"Did you mean {near[0]!r}?" if near else f"Try {', '.join(known)}."
            raise ValueError(f"There is no {kind} {name!r}. {hint}")


def _check_argument(rule: Rule) -> None:
    if rule.target != "self" and rule.action not in _SIGNALS:
        raise ValueError(f"{rule.action} strikes only the process itself.")
    if rule.action == "sleep":
        if re.fullmatch(r"\d+(\.\d+)?", rule.argument) is None:
            raise ValueError("sleep needs a number of seconds, as in sleep(0.5).")
    elif rule.argument and rule.action != "dbdrop":
        raise ValueError(f"{rule.action} takes no argument.")


# -- what is done ------------------------------------------------------------------


def _pids_of(target: str) -> list[int]:
    # Late: no process pays for it that has no failpoints.
    from multiprocessing import parent_process, process

    parent = parent_process()
    if target == "parent" and parent is not None:
        return [parent.pid or 0]
    if target == "child" and parent is None:
        # Not active_children(), which takes the exit codes of the dead.
        children = process._children  # type: ignore[attr-defined]
        return [child.pid for child in list(children) if child.pid]
    return [os.getpid()]


def _send(number: signal.Signals, pids: list[int]) -> None:
    for pid in pids:
        if pid == os.getpid():
            # To this thread, which else might go on until another has taken it.
            signal.pthread_kill(threading.get_ident(), number)
        else:
            with suppress(ProcessLookupError):
                os.kill(pid, number)


def _exit(rule: Rule) -> None:
    os._exit(0)


def _raise(rule: Rule) -> None:
    raise FailpointReached(f"the failpoint {rule.point} was reached")


def _raise_oserror(rule: Rule) -> None:
    raise OSError(errno.EIO, f"the failpoint {rule.point} was reached")


def _drop_connection(rule: Rule) -> None:
    """Cut the connection as a network does: the driver is not told."""
    connection = connections[rule.database]
    raw = connection.connection
    if raw is None:
        return
    if connection.vendor == "sqlite":
        raw.close()
        return
    # PyMySQL does not tell the number of its socket.
    descriptor = raw.fileno() if hasattr(raw, "fileno") else raw._sock.fileno()
    with socket.socket(fileno=os.dup(descriptor)) as end, suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)


def _sleep(rule: Rule) -> None:
    time.sleep(float(rule.argument))


_DEEDS: dict[str, Callable[[Rule], None]] = {
    "exit": _exit,
    "raise": _raise,
    "oserror": _raise_oserror,
    "dbdrop": _drop_connection,
    "sleep": _sleep,
}


# -- in every process --------------------------------------------------------------

_text = os.environ.get(VARIABLE, "")
#: What is wrong with the variable; a system check says it, and so does every point.
problem = ""
try:
    _rules = read(_text)
except ValueError as _error:
    problem = f"{VARIABLE}: {_error}"
    _rules = {"": []}  # true, so that every point complains


def reach(point: str) -> None:
    """Say that this process has reached a point."""
    if _rules:
        _strike(point)


def _strike(point: str) -> None:
    if problem:
        raise ImproperlyConfigured(problem)
    for rule in _rules.get(point, ()):
        rule.arrive()


def rules() -> list[Rule]:
    """Return the rules of this process."""
    return [rule for each in _rules.values() for rule in each]


def say_so() -> None:
    """Log that this process is made to fail, if it is."""
    if _rules:
        events.log(logger, logging.WARNING, "failpoints_on", failpoints=_text)
