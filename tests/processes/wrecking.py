"""Tasks that change, break or starve the process in which they run."""

from __future__ import annotations

import asyncio
import contextvars
import decimal
import gc
import hashlib
import io
import locale
import logging.config
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from django.utils import timezone, translation

from django_jobs import task
from tests.processes.tasks import audit

#: Set by a task, never by anybody else.
spoken = contextvars.ContextVar("spoken", default="nothing")


# -- the state of the process ----------------------------------------------------------


def _go_to_a_folder_that_goes(folder: str) -> None:
    os.makedirs(folder)
    os.chdir(folder)
    os.rmdir(folder)


def _move_the_clock(folder: str) -> None:
    os.environ["TZ"] = "Asia/Kathmandu"
    time.tzset()


def _speak_another_locale(folder: str) -> None:
    locale.setlocale(locale.LC_ALL, "POSIX" if _locale() == "C.UTF-8" else "C.UTF-8")


def _reconfigure_logging(folder: str) -> None:
    # As dictConfig does by default: all loggers that are there already fall silent.
    logging.config.dictConfig({"version": 1, "root": {"level": "CRITICAL"}})


def _replace_streams(folder: str) -> None:
    sys.stdout = sys.stderr = io.StringIO()


def _replace_hooks(folder: str) -> None:
    sys.excepthook = threading.excepthook = sys.unraisablehook = lambda *args: None


def _change_signals(folder: str) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGALRM, signal.SIG_IGN)


def _fill_the_environment(folder: str) -> None:
    os.environ["SPOKEN"] = "by a task"
    del os.environ["DJANGO_SETTINGS_MODULE"]


def _fail_on_warnings(folder: str) -> None:
    warnings.simplefilter("error", ImportWarning)


def _enter_warnings(folder: str) -> None:
    warnings.catch_warnings(action="error", category=ImportWarning).__enter__()


CHANGES: dict[str, Callable[[str], Any]] = {
    "folder": lambda folder: os.chdir("/"),
    "folder that is deleted": _go_to_a_folder_that_goes,
    "umask": lambda folder: os.umask(0),
    "environment": _fill_the_environment,
    "clock": _move_the_clock,
    "locale": _speak_another_locale,
    "logging": _reconfigure_logging,
    "no logging": lambda folder: logging.disable(logging.CRITICAL),
    "no handlers": lambda folder: logging.root.handlers.clear(),
    "streams": _replace_streams,
    "hooks": _replace_hooks,
    "collector": lambda folder: gc.disable(),
    "recursion": lambda folder: sys.setrecursionlimit(5000),
    "sockets": lambda folder: socket.setdefaulttimeout(0.001),
    "warnings": _fail_on_warnings,
    "warnings entered": _enter_warnings,
    "language": lambda folder: translation.activate("de"),
    "time zone": lambda folder: timezone.activate("Asia/Kathmandu"),
    "decimals": lambda folder: setattr(decimal.getcontext(), "prec", 3),
    "context": lambda folder: spoken.set("something"),
}
#: Only the main thread may do these.
SIGNALS: dict[str, Callable[[str], Any]] = {
    # When its time has come, it would end whoever runs then.
    "a timer": lambda folder: signal.setitimer(signal.ITIMER_REAL, 60),
    "a timer of its own time": lambda folder: signal.setitimer(signal.ITIMER_PROF, 60),
    "a timer of the processor": lambda folder: signal.setitimer(
        signal.ITIMER_VIRTUAL, 60
    ),
    "signals": _change_signals,
    "blocked signals": lambda folder: _block_all(),
}


#: After these, what is looked at is not even there.
BREAKS: dict[str, Callable[[str], Any]] = {
    "no standard output": lambda folder: delattr(sys, "stdout"),
    "no list of handlers": lambda folder: setattr(logging.root, "handlers", None),
    "no list of filters": lambda folder: setattr(warnings, "filters", None),
}


def _block_all() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())


def _locale() -> str:
    return locale.setlocale(locale.LC_ALL)


def state() -> dict[str, str]:
    """Tell of everything above how it is now, as text."""
    mask = os.umask(0o077)
    os.umask(mask)
    loggers = [logging.root, logging.getLogger("django_jobs"), logging.getLogger("new")]
    return {
        "folder": os.getcwd(),
        "umask": oct(mask),
        "environment": str(sorted(filter(_is_of_interest, os.environ))),
        "zone": os.environ.get("TZ", ""),
        "environment of programs": _environment_of_a_program(),
        "clock": f"{time.tzname} {time.timezone}",
        "locale": _locale(),
        "logging": str(
            [(each.handlers, each.level, each.disabled) for each in loggers]
        ),
        "no logging": str(logging.root.manager.disable),
        "streams": str([sys.stdin, sys.stdout, sys.stderr]),
        "hooks": str([sys.excepthook, threading.excepthook, sys.unraisablehook]),
        "collector": str(gc.isenabled()),
        "recursion": str(sys.getrecursionlimit()),
        "sockets": str(socket.getdefaulttimeout()),
        "warnings": str(warnings.filters),
        "language": str(translation.get_language()),
        "time zone": timezone.get_current_timezone_name(),
        "decimals": str(decimal.getcontext()),
        "context": spoken.get(),
        "signals": str([signal.getsignal(each) for each in _SHOWN_SIGNALS]),
        "timers": str([signal.getitimer(each) > (0, 0) for each in range(3)]),
        "blocked signals": str(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
        "process": str(os.getpid()),
    }


_SHOWN_SIGNALS = sorted(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})


def _environment_of_a_program() -> str:
    told = subprocess.run("env", capture_output=True, text=True, check=True).stdout
    return str(sorted(filter(_is_of_interest, told.splitlines())))


def _is_of_interest(variable: str) -> bool:
    return not variable.startswith("PYTEST_")  # changes with each phase of a test


@task
def change(kind: str, folder: str) -> str:
    (CHANGES | SIGNALS | BREAKS)[kind](folder)
    return kind


@task
async def async_change(kind: str, folder: str) -> str:
    (CHANGES | BREAKS)[kind](folder)
    return kind


@task
def tell_state() -> dict[str, str]:
    return state()


@task
async def async_tell_state() -> dict[str, str]:
    return state()


# -- descriptors -----------------------------------------------------------------------

_CLOSE: dict[str, Callable[[], None]] = {
    "low": lambda: os.closerange(3, 256),
    "standard": lambda: os.closerange(0, 3),
    "output": lambda: sys.stdout.close(),
    # Ours are far up, to be out of the way of the other kinds.
    "high": lambda: os.closerange(900, 1024),
    "all": lambda: os.closerange(0, 65536),
}


@task(takes_context=True)
def close(context, kind: str) -> str:
    """Close descriptors in the first attempt; open others in their place."""
    if context.attempt == 1:
        _CLOSE[kind]()
        close.kept = [socket.socket() for _ in range(5)]  # type: ignore[attr-defined]
    return f"closed {kind}"


@task(takes_context=True)
async def async_close(context, kind: str) -> str:
    if context.attempt == 1:
        _CLOSE[kind]()
    return f"closed {kind}"


@task
async def write_then_sleep(path: str, seconds: float) -> str:
    audit(path, "start")
    await asyncio.sleep(seconds)
    return "slept"


# -- ways to leave ---------------------------------------------------------------------


class Odd(BaseException):
    """No Exception, and no exit."""


LEAVING: dict[str, type[BaseException]] = {
    each.__name__: each
    for each in (
        *(SystemExit, KeyboardInterrupt, GeneratorExit, StopIteration, Odd),
        *(StopAsyncIteration, asyncio.CancelledError),
    )
}


@task(max_attempts=1)
def leave(kind: str) -> None:
    raise LEAVING[kind]


@task(max_attempts=1)
async def async_leave(kind: str) -> None:
    raise LEAVING[kind]


@task(takes_context=True)
async def async_exit(context, path: str) -> str:
    """End the process as if all were well, in the first attempt."""
    audit(path, f"attempt {context.attempt}")
    if context.attempt == 1:
        os._exit(0)
    return "survived"


# -- processes that outlive their task -------------------------------------------------

_SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


def _fork_away(path: str, *, closes: bool) -> None:
    """Become a daemon by the book: a new session, two forks, and nothing left open.

    Return when the daemon has told of itself: the task may end with a crash next.
    """
    hears, tells = os.pipe()
    if os.fork():
        os.close(tells)
        os.read(hears, 1)
        os.close(hears)
        os.wait()
        return
    os.setsid()
    if os.fork() == 0:
        audit(path, str(os.getpid()))
        os.write(tells, b".")
        os.close(tells)
        os.close(hears)
        os.chdir("/")
        if closes:
            os.closerange(0, 65536)
        os.environ.clear()
        time.sleep(60)
    os._exit(0)


def _start(path: str, **options: Any) -> None:
    audit(path, str(subprocess.Popen(_SLEEP, **options).pid))


def _start_beyond(path: str) -> None:
    """Start a program from a program that ends: nobody knows its parent any more."""
    code = (
        "import subprocess, sys;"
        f"print(subprocess.Popen({_SLEEP!r}, start_new_session=True, env={{}}, "
        "stdout=subprocess.DEVNULL).pid)"
    )
    told = subprocess.run(
        [sys.executable, "-c", code], start_new_session=True, stdout=subprocess.PIPE
    )
    audit(path, told.stdout.decode().strip())


OFFSPRING: dict[str, Callable[[str], None]] = {
    "in the group": _start,
    "in a session of its own": lambda path: _start(path, start_new_session=True),
    "without environment": lambda path: _start(path, start_new_session=True, env={}),
    "beyond a program": _start_beyond,
    "a daemon": lambda path: _fork_away(path, closes=True),
    "a copy": lambda path: _fork_away(path, closes=False),
}


@task(takes_context=True, max_attempts=1)
def leave_offspring(context, path: str, end: str) -> str:
    """Start one of each; then end in one of many ways, in the first attempt."""
    if context.attempt > 1:
        return "ran again"
    for number, start in enumerate(OFFSPRING.values(), 1):
        start(path)
        while len(Path(path).read_text().splitlines()) < number:
            time.sleep(0.005)  # a daemon tells its number by itself
    audit(path, "all")
    if end == "crash":
        os.kill(os.getpid(), signal.SIGKILL)
    elif end == "stay":
        time.sleep(60)
    return "left"


def _match_for_ever() -> None:
    re.match("(a|a)*b", "a" * 64)


@task
def hold_the_interpreter(path: str) -> None:
    """Start a program, then let no other thread of this process run any more."""
    audit(path, f"{os.getpid()} {subprocess.Popen(_SLEEP).pid}")
    _match_for_ever()


# -- more than there is ----------------------------------------------------------------


@task(takes_context=True)
def grow_until_killed(context, megabytes: int) -> str:
    """Take more memory than the group has, in the first attempt; 0: imitate its end."""
    if context.attempt > 1:
        return "survived"
    if not megabytes:
        os.kill(os.getpid(), signal.SIGKILL)
    kept = [b"x" * (1 << 20) for _ in range(megabytes)]
    return f"has taken {len(kept)} megabytes"


@task(max_attempts=1)
def grow_beyond_a_limit(megabytes: int) -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + (megabytes << 20), most))
    bytearray(4 * megabytes << 20)


@task(max_attempts=1)
def leak_descriptors() -> None:
    kept = leak_descriptors.kept = []  # type: ignore[attr-defined]
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 1024))
    while True:
        kept.append(os.open(os.devnull, os.O_RDONLY))


@task
def tell_limits() -> dict[str, int]:
    kinds = {"memory": resource.RLIMIT_AS, "descriptors": resource.RLIMIT_NOFILE}
    return {name: resource.getrlimit(kind)[0] for name, kind in kinds.items()}


@task(max_attempts=1)
def fork_bomb(path: str, generations: int, leaves: bool, pause: float) -> None:
    """Double so many times; then all of them go on with a pause, for ever."""
    for _ in range(generations):
        with suppress(OSError):
            if os.fork() == 0:
                audit(path, str(os.getpid()))
                if leaves:
                    os.setsid()
    while True:
        with suppress(OSError):
            if os.fork() == 0:
                audit(path, str(os.getpid()))
                time.sleep(60)
        time.sleep(pause)


_MEGABYTE = 1 << 20


def _print_at_once(megabytes: int) -> None:
    text = "x" * (100 * _MEGABYTE)
    for _ in range(megabytes // 100):
        print(text)  # noqa: T201


def _write_parts(part: str) -> Callable[[int], None]:
    def write(megabytes: int) -> None:
        text = part * (_MEGABYTE // len(part))
        for _ in range(megabytes):
            sys.stdout.write(text)

    return write


def _write_bytes(megabytes: int) -> None:
    for _ in range(megabytes):
        sys.stdout.buffer.write(b"\0\xff" * (_MEGABYTE // 2))
    sys.stdout.buffer.flush()


def _have_a_program_write(megabytes: int) -> None:
    subprocess.run(["head", "-c", str(megabytes * _MEGABYTE), "/dev/zero"], check=True)


def _log(megabytes: int) -> None:
    for _ in range(megabytes // 10):
        logging.getLogger("flood").warning("%s", "x" * (10 * _MEGABYTE))


#: Ways to write so many megabytes to the terminal.
FLOODS: dict[str, Callable[[int], None]] = {
    "100 MB at once": _print_at_once,
    "without a line's end": _write_parts("x"),
    "many lines": _write_parts(f"{'x' * 63}\n"),
    "empty lines": _write_parts("\n"),
    "bytes": _write_bytes,
    "a program": _have_a_program_write,
    "logged": _log,
}


@task
def flood(kind: str, megabytes: int) -> float:
    """Return how many megabytes more than before this process had at most."""
    Path("/proc/self/clear_refs").write_text("5")
    before = _peak()
    FLOODS[kind](megabytes)
    return _peak() - before


def _peak() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


# -- who does not listen ---------------------------------------------------------------


def _block_and_sleep() -> None:
    _block_all()
    _sleep_on()


def _sleep_on() -> None:
    """Swallow whatever is raised, as often as it takes."""
    while True:
        with suppress(BaseException):
            time.sleep(60)


class _Undying:
    def __del__(self) -> None:
        # An exception that is raised in here is printed and forgotten.
        end = time.monotonic() + 60
        while time.monotonic() < end:
            time.sleep(0.01)


#: What holds out against a limit, and whether it holds the interpreter too.
DEAF: dict[str, Callable[[], Any]] = {
    "blocked signals": _block_and_sleep,
    "swallows all": _sleep_on,
    "a finalizer": lambda: _Undying(),
    "a hash": lambda: hashlib.pbkdf2_hmac("sha512", b"a", b"b", 500_000_000),
    "a power": lambda: 3 ** (10**9) % 7,
    "a regex": _match_for_ever,
}


@task(max_attempts=1)
def be_deaf(kind: str) -> None:
    DEAF[kind]()


@task(max_attempts=1)
async def async_be_deaf(kind: str) -> None:
    DEAF[kind]()


@task(max_attempts=1, soft_time_limit=0.3)
def be_deaf_softly(kind: str) -> None:
    DEAF[kind]()


@task(max_attempts=1, soft_time_limit=0.2)
def block_signals_for(seconds: float) -> str:
    """Hear of the soft limit only when it does not matter any more."""
    _block_all()
    time.sleep(seconds)
    return "slept"
