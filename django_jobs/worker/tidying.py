"""What a task has changed for its whole process: put back before the next one runs.

It is looked at after every attempt, so that must cost next to nothing: what Python
knows is compared, what only the kernel knows is set once more without asking. What
belongs to a context (the active language, the time zone, decimals) needs none of that:
each attempt has a context of its own.
"""

from __future__ import annotations

# What the modules signal and locale add takes twenty times and twice as long.
import _locale
import _signal  # type: ignore[import-not-found]
import decimal
import errno
import gc
import locale
import logging
import os
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context, copy_context
from logging import root
from types import FrameType
from typing import Any, cast

#: What the process is short of, and not the task alone.
_SHORTAGES = frozenset({errno.ENOMEM, errno.EAGAIN, errno.EMFILE, errno.ENFILE})
_SIGNALS = (
    *(signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGALRM),
    *(signal.SIGUSR1, signal.SIGUSR2, signal.SIGPIPE, signal.SIGCHLD),
)
# Numbers, for the same reason.
_INT, _TERM, _PIPE, _CHLD = (
    *(int(signal.SIGINT), int(signal.SIGTERM)),
    *(int(signal.SIGPIPE), int(signal.SIGCHLD)),
)
_SET_MASK = int(signal.SIG_SETMASK)
_TIMERS = int(signal.ITIMER_REAL), int(signal.ITIMER_VIRTUAL), int(signal.ITIMER_PROF)
_NUMBERS = locale.LC_NUMERIC
_OURS = logging.getLogger("django_jobs")

#: Puts back one part of what was there when it was made.
Mender = Callable[[], None]

_context = Context()


# -- contexts ------------------------------------------------------------------------


def keep_context() -> None:
    """Have every attempt start in the context that is here now.

    But for its decimals: attempts would share the one object in which they are. A
    context that has none gets a copy of the default.
    """
    global _context
    _context = Context()
    for variable, value in copy_context().items():
        if variable.name != "decimal_context":
            _context.run(variable.set, value)
    here, default = decimal.getcontext(), decimal.DefaultContext
    for name in ("prec", "rounding", "Emin", "Emax", "capitals", "clamp"):
        setattr(default, name, getattr(here, name))
    default.traps.update(here.traps)


def fresh_context() -> Context:
    """Return the context of a new attempt."""
    return _context.copy()


# -- the process -----------------------------------------------------------------------


def is_shortage(error: BaseException) -> bool:
    """Tell whether the process has no memory, descriptors or processes left."""
    with suppress(BaseException):  # that of a task may do anything when it is asked
        if isinstance(error, OSError):
            return error.errno in _SHORTAGES
        if isinstance(error, RuntimeError):
            return str(error) == "can't start new thread"
        return isinstance(error, MemoryError)
    return False


class Surroundings:
    """The state of the process as it is now, to come back to."""

    def __init__(self) -> None:
        self._variables = _Variables.watch()
        self._filters = _Filters.watch()
        self._mask = _signal.pthread_sigmask(signal.SIG_BLOCK, ())
        #: By one of these a task would end whoever runs when its time has come.
        self._timers = [each for each in _TIMERS if not any(_signal.getitimer(each))]
        self._umask = os.umask(0o077)
        os.umask(self._umask)
        self._folder = _open_folder()
        # Who closes all that he does not know closes the folder as well. And what
        # Python opens in the place of one of these is not inherited.
        os.set_inheritable(self._folder, True)
        self._output = [each for each in (1, 2) if _is_inherited(each)]
        self._open = [*self._output, self._folder]
        self._menders = (
            *(_keep_environment(self._variables), _keep_clock(), _keep_locale()),
            *(_keep_interpreter(), _keep_streams(), _keep_loggers()),
            *(_keep_warnings(self._filters), _keep_signals()),
        )
        self._seen = self._look()

    def put_back(self, *, is_alone: bool = True) -> bool:
        """Put back what differs; False when only another process will do.

        What threads share is left as it is while other attempts run, which may have
        changed it on purpose: not ``is_alone``.
        """
        try:
            _signal.pthread_sigmask(_SET_MASK, self._mask)
            for descriptor in self._output if is_alone else self._open:
                if not os.get_inheritable(descriptor):
                    return False
            if not is_alone:
                return True
            os.umask(self._umask)
            for timer in self._timers:
                _signal.setitimer(timer, 0)
            os.fchdir(self._folder)
            return self._is_as_it_was() or self._mend()
        except BaseException:
            # The folder is gone, a handler of the task for a signal that was blocked
            # raises, ...: it must not cost the outcome, which is yet to be sent.
            return False

    def _mend(self) -> bool:
        for mend in self._menders:
            with suppress(Exception):  # signals: only in the main thread
                mend()
        return self._is_as_it_was()

    def _is_as_it_was(self) -> bool:
        try:
            return self._look() == self._seen
        except Exception:  # what is looked at is not even there
            return False

    def _look(self) -> tuple[Any, ...]:
        """Return by what a change is noticed; the menders put back more than that."""
        return (
            self._variables.is_changed,
            time.tzname,
            _locale.setlocale(_NUMBERS),  # all at once takes eight times as long
            gc.isenabled(),
            sys.getrecursionlimit(),
            socket.getdefaulttimeout(),
            sys.stdout,
            sys.stderr,
            sys.excepthook,
            threading.excepthook,
            root.level,
            root.handlers[:],
            _OURS.isEnabledFor(logging.ERROR),  # disable() and dictConfig() end that
            warnings.filters == self._filters.wanted,
            _signal.getsignal(_INT),
            _signal.getsignal(_TERM),
            _signal.getsignal(_PIPE),
            _signal.getsignal(_CHLD),
        )


def _open_folder() -> int:
    try:
        return os.open(".", getattr(os, "O_PATH", os.O_RDONLY))
    except OSError:  # not to be read, and not on Linux
        return os.open("/", os.O_RDONLY)


def _is_inherited(descriptor: int) -> bool:
    with suppress(OSError):
        return os.get_inheritable(descriptor)
    return False


# -- what a module sets while it is imported stays: it is not imported again -----------


def _is_importing() -> bool:
    """Tell whether this thread imports a module."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib._bootstrap"):
            return True
        frame = frame.f_back
    return False


class _Variables(dict[Any, Any]):
    """In place of the dict of ``os.environ``: notes that it was written.

    A comparison takes as long as there are variables, in some places hundreds.
    """

    is_changed = False

    def __init__(self, variables: dict[Any, Any]) -> None:
        super().__init__(variables)
        #: What is put back.
        self.wanted = dict(variables)

    @classmethod
    def watch(cls) -> _Variables:
        variables = cls(os.environ._data)  # type: ignore[attr-defined]
        os.environ._data = os.environb._data = variables  # type: ignore[attr-defined]
        return variables

    def __setitem__(self, key: Any, value: Any) -> None:
        # The clock is that of the project, whatever is imported.
        if key not in self.wanted and key != b"TZ" and _is_importing():
            self.wanted[key] = value
        self.is_changed = True
        super().__setitem__(key, value)

    def __delitem__(self, key: Any) -> None:
        self.is_changed = True
        super().__delitem__(key)


class _Filters(list[Any]):
    """In place of ``warnings.filters``."""

    def __init__(self, filters: list[Any]) -> None:
        super().__init__(filters)
        #: What is put back.
        self.wanted = list(filters)

    @classmethod
    def watch(cls) -> _Filters:
        filters: Any = cls(warnings.filters)  # type: ignore[arg-type]
        warnings.filters = filters
        return cast(_Filters, filters)

    def insert(self, index: Any, item: Any) -> None:
        if _is_importing():
            self.wanted[:] = [each for each in self.wanted if each != item]
            self.wanted.insert(index, item)
        super().insert(index, item)

    def append(self, item: Any) -> None:
        if _is_importing():
            self.wanted.append(item)
        super().append(item)


# -- each looks at how it is now and returns what puts that back ---------------------


def _keep_environment(variables: _Variables) -> Mender:
    wanted = variables.wanted

    def mend() -> None:
        for name in variables.keys() - wanted.keys():
            del os.environb[name]
        for name, value in wanted.items():
            if variables.get(name) != value:
                os.environb[name] = value
        variables.is_changed = False

    return mend


def _keep_clock() -> Mender:
    before = time.tzname, time.timezone, time.altzone

    def mend() -> None:
        if (time.tzname, time.timezone, time.altzone) != before:
            time.tzset()  # by the environment, which is as it was again

    return mend


def _keep_locale() -> Mender:
    before = locale.setlocale(locale.LC_ALL)

    def mend() -> None:
        locale.setlocale(locale.LC_ALL, before)

    return mend


def _keep_interpreter() -> Mender:
    is_collecting, limit = gc.isenabled(), sys.getrecursionlimit()
    timeout = socket.getdefaulttimeout()
    hooks = sys.excepthook, sys.unraisablehook, threading.excepthook

    def mend() -> None:
        (gc.enable if is_collecting else gc.disable)()
        sys.setrecursionlimit(limit)
        socket.setdefaulttimeout(timeout)
        sys.excepthook, sys.unraisablehook, threading.excepthook = hooks

    return mend


def _keep_streams() -> Mender:
    before = sys.stdin, sys.stdout, sys.stderr

    def mend() -> None:
        sys.stdin, sys.stdout, sys.stderr = before

    return mend


def _keep_warnings(filters: _Filters) -> Mender:
    def mend() -> None:
        # catch_warnings() puts a copy in its place.
        warnings.filters = filters
        warnings.resetwarnings()  # tells the interpreter, too
        filters[:] = filters.wanted

    return mend


def _keep_signals() -> Mender:
    handlers = {number: signal.getsignal(number) for number in _SIGNALS}

    def mend() -> None:
        for number, handler in handlers.items():
            if handler is not None and signal.getsignal(number) != handler:
                signal.signal(number, handler)

    return mend


def _keep_loggers() -> Mender:
    nothing_below = root.manager.disable
    before = [
        (each, list(each.handlers), each.level, each.propagate, each.disabled)
        for each in _loggers()
    ]

    def mend() -> None:
        logging.disable(nothing_below)
        # logging.config silences all, also those made since. One alone that was made
        # since is left as it is: it may be a library's that is silent on purpose.
        if any(each.disabled and not disabled for each, *_, disabled in before):
            for logger in _loggers():
                logger.disabled = False
        for logger, handlers, level, propagate, disabled in before:
            logger.handlers = list(handlers)
            logger.propagate, logger.disabled = propagate, disabled
            logger.setLevel(level)

    return mend


def _loggers() -> list[logging.Logger]:
    known = root.manager.loggerDict.values()
    return [root, *(each for each in known if isinstance(each, logging.Logger))]
