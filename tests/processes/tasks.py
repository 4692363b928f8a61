"""The tasks of these tests. What they did is told by lines in a file.

One ``os.write`` per line to a file opened for appending: the line is there even when
the process dies in the next moment, and lines of several processes do not mix.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import resource
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

from django_jobs import Reject, Retry, Snooze, SoftTimeLimitExceeded, task
from django_jobs.exceptions import TaskInterrupted

logger = logging.getLogger("tests.processes")


def audit(path: str, line: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, f"{line}\n".encode())
    os.close(descriptor)


@task
def noop() -> None: ...


@task
def add(left: int, right: int) -> int:
    return left + right


@task(takes_context=True)
def who(context, path: str) -> int:
    audit(path, f"{context.attempt} {os.getpid()} {os.getpgid(0)} {os.getppid()}")
    return os.getpid()


@task
def write(path: str, line: str) -> None:
    audit(path, line)


@task
def carry(path: str, line: str, load: str) -> None:
    audit(path, line)


@task
def sleep(seconds: float, path: str = "", line: str = "slept") -> str:
    if path:
        audit(path, f"start {line}")
    time.sleep(seconds)
    if path:
        audit(path, f"end {line}")
    return line


@task
def wait_for_line(path: str, name: str, line: str) -> str:
    """Run until somebody writes a line."""
    audit(path, f"start {name}")
    while line not in Path(path).read_text().splitlines():
        time.sleep(0.01)
    audit(path, f"end {name}")
    return line


@task(atomic=True)
def wait_atomically(path: str, name: str, line: str) -> str:
    """Write a row on the queue's database, which stands when the task succeeds."""
    from django_jobs.models import Queue

    Queue.objects.create(name=name)
    return wait_for_line.call(path, name, line)


@task
async def async_sleep(seconds: float, path: str = "") -> str:
    if path:
        audit(path, "start")
    await asyncio.sleep(seconds)
    return "slept"


@task(max_attempts=3, backoff=[0.05])
def fail(message: str = "no luck") -> None:
    logger.warning("about to fail with %s", message)
    raise ValueError(message)


@task(max_attempts=3, backoff=[0.05], takes_context=True)
def succeed_at(context, attempt: int) -> int:
    if context.attempt < attempt:
        raise ConnectionError(f"not yet: {context.attempt}")
    return context.attempt


@task(max_attempts=5, give_up_on=(KeyError,))
def give_up() -> None:
    raise KeyError("never mind")


@task
def reject() -> None:
    raise Reject("not for me")


@task(max_attempts=2, takes_context=True)
def retry_soon(context, path: str) -> str:
    audit(path, f"attempt {context.attempt}")
    if context.attempt == 1:
        raise Retry("once more", after=0.05)
    return "done"


@task(max_attempts=1, takes_context=True)
def snooze_until(context, path: str) -> int:
    audit(path, f"attempt {context.attempt}")
    with open(path) as lines:
        if len(lines.readlines()) < 4:
            raise Snooze(0.05)
    return context.attempt


@task(time_limit=0.5, max_attempts=1)
def overrun(path: str) -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    audit(path, f"{os.getpid()} {child.pid}")
    while True:
        try:
            time.sleep(60)
        except BaseException:
            continue


@task(soft_time_limit=0.3, max_attempts=1)
def tidy_up(path: str) -> None:
    try:
        time.sleep(30)
    except SoftTimeLimitExceeded:
        audit(path, "tidied up")
        raise


@task(soft_time_limit=0.3, max_attempts=1)
async def async_tidy_up(path: str) -> None:
    try:
        await asyncio.sleep(30)
    except SoftTimeLimitExceeded:
        audit(path, "tidied up")
        raise


@task
def interruptible(path: str) -> None:
    audit(path, "start")
    try:
        time.sleep(30)
    except TaskInterrupted:
        audit(path, "interrupted")
        raise


@task
async def async_interruptible(path: str) -> None:
    audit(path, "start")
    try:
        await asyncio.sleep(30)
    except TaskInterrupted:
        audit(path, "interrupted")
        raise


@task
def stubborn(path: str) -> None:
    audit(path, f"start {os.getpid()}")
    while True:
        try:
            time.sleep(30)
        except BaseException:
            continue


@task(takes_context=True)
def die(context, path: str, how: str, times: int = 1) -> str:
    """Take the process along for the first so many attempts."""
    audit(path, f"attempt {context.attempt}")
    if context.attempt <= times:
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif how == "segfault":
            ctypes.string_at(0)
        elif how == "exit":
            os._exit(0)
        elif how == "system exit":
            sys.exit(3)
    return "survived"


@task
def core_limit() -> int:
    return resource.getrlimit(resource.RLIMIT_CORE)[0]


@task
def which_thread(seconds: float) -> str:
    time.sleep(seconds)
    return threading.current_thread().name


@task
def grow(megabytes: int) -> int:
    grow.kept = bytearray(megabytes * 1024 * 1024)  # type: ignore[attr-defined]
    return os.getpid()


@task(takes_context=True)
def report_progress(context, path: str) -> None:
    context.progress(1, 4, "first of four")
    context.metadata["seen"] = True
    context.save_metadata()
    audit(path, "reported")
    time.sleep(1)


@task(max_attempts=1)
def unspeakable() -> object:
    return object()


@task(atomic=True, takes_context=True, max_attempts=1)
def note_atomically(context, path: str, name: str, how: str) -> str:
    """Write a row on the queue's database, then end as told."""
    from django_jobs.models import Queue

    audit(path, f"attempt {context.attempt}")
    Queue.objects.create(name=f"{name}-{context.attempt}")
    if how == "kill once" and context.attempt == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "raise":
        raise ValueError("rolled back")
    if how == "sleep":
        audit(path, "sleeps")
        time.sleep(3)
    return name


@task(soft_time_limit=0.3, max_attempts=1)
def spin_softly(path: str) -> None:
    """Run bytecode: in a thread nothing else can be interrupted."""
    try:
        while True:
            time.sleep(0.01)
    except SoftTimeLimitExceeded:
        audit(path, "tidied up")
        raise


@task
def imported_value(module: str) -> int:
    value: int = sys.modules[module].VALUE
    return value


@task(takes_context=True)
def stop_when_asked(context, path: str) -> None:
    """Ignore the interruption but look whether one is wanted."""
    audit(path, "start")
    while not context.should_stop():
        try:
            time.sleep(0.02)
        except TaskInterrupted:
            continue
    audit(path, "stopped")


def begin(how: str) -> None:
    """Begin a transaction: in one of the ways that Django, or only SQL, knows."""
    from django.db import connection, transaction

    if how == "atomic":
        transaction.atomic().__enter__()
    elif how == "autocommit":
        transaction.set_autocommit(False)
    else:
        connection.cursor().execute(how)


#: All of them.
BEGINNINGS = ["atomic", "autocommit", "BEGIN"]


@task
def leave_transaction_open(how: str = "atomic") -> None:
    from django_jobs.models import Queue

    begin(how)
    Queue.objects.create(name="never committed")


@task
def create_queue(name: str) -> None:
    from django_jobs.models import Queue

    Queue.objects.create(name=name)


@task
async def async_leave_transaction_open(how: str = "atomic") -> None:
    from asgiref.sync import sync_to_async

    from django_jobs.models import Queue

    await sync_to_async(begin)(how)
    await Queue.objects.acreate(name="never committed")


@task
async def open_transaction_later(path: str) -> None:
    """Leave a transaction open after the end of the task itself."""

    async def later() -> None:
        await asyncio.sleep(0.2)
        await async_leave_transaction_open.func()
        audit(path, "opened")

    open_transaction_later.kept = asyncio.create_task(later())  # type: ignore[attr-defined]


@task
async def async_create_queue(name: str) -> None:
    from django_jobs.models import Queue

    await Queue.objects.acreate(name=name)


async def _until_lines(path: str, count: int) -> None:
    while True:
        with open(path, "a+") as file:
            file.seek(0)
            if len(file.readlines()) >= count:
                return
        await asyncio.sleep(0.02)


@task
async def hold_transaction(path: str, name: str) -> None:
    """Write in a block that stays open while two other coroutines end."""
    from asgiref.sync import sync_to_async
    from django.db import transaction

    from django_jobs.models import Queue

    block = transaction.atomic()
    await sync_to_async(block.__enter__)()
    await Queue.objects.acreate(name=name)
    audit(path, "holds")
    await _until_lines(path, 3)
    await asyncio.sleep(0.2)
    await sync_to_async(block.__exit__)(None, None, None)


@task(backoff=[0.05])
async def create_queue_after(path: str, name: str) -> None:
    await _until_lines(path, 1)
    await async_create_queue.func(name)


@task
async def leave_open_what_another_uses(path: str) -> None:
    await async_leave_transaction_open.func()
    audit(path, "open")
    await _until_lines(path, 2)


@task(backoff=[0.05])
async def write_while_open(path: str, name: str) -> None:
    await _until_lines(path, 1)
    await async_create_queue.func(name)
    audit(path, "wrote")
    await _until_lines(path, 3)


@task
async def end_while_held(path: str) -> None:
    await _until_lines(path, 1)
    audit(path, "ends")


class BareRetry(Retry):
    def __init__(self) -> None:
        """Leave out what the base class sets."""


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise SystemExit("not even this")


@task(max_attempts=1)
def raise_oddly(how: str) -> None:
    raise BareRetry if how == "retry" else Unspeakable


@task(atomic=True, max_attempts=3)
def fail_after_commit(path: str) -> str:
    from django.db import transaction

    def explode() -> None:
        raise ValueError("after the commit")

    audit(path, "run")
    transaction.on_commit(explode)
    return "done"


@task
def use_processes(times: int) -> int:
    import multiprocessing

    total = 0
    for _ in range(times):
        with multiprocessing.get_context("fork").Pool(2) as pool:
            total += sum(pool.map(abs, [-1, -2, -3]))
    return total


@task
def fork_and_return(path: str) -> str:
    who = "original" if os.fork() else "copy"
    audit(path, f"{who} {os.getpid()}")
    return who


def _fork(path: str) -> str:
    who = "original" if os.fork() else "copy"
    audit(path, f"forked {who} {os.getpid()}")
    return who


async def _afork(path: str) -> str:
    return _fork(path)


@task
async def async_fork(path: str, where: str) -> str:
    """Fork while other coroutines run, then go on in both processes."""
    from asgiref.sync import sync_to_async

    if where == "thread":
        who = await asyncio.to_thread(_fork, path)
    elif where == "database thread":
        who = await sync_to_async(_fork)(path)
    elif where == "part":
        who = await asyncio.create_task(_afork(path))
    else:
        who = _fork(path)
    if where == "awaiting":
        await asyncio.sleep(0)
    audit(path, f"{who} went on")
    return who


@task
async def tick(path: str) -> None:
    """Use the loop and its threads for a second; tell if a copy does so too."""
    from asgiref.sync import sync_to_async

    pid, end = os.getpid(), time.monotonic() + 1

    def beat() -> None:
        if os.getpid() != pid:
            audit(path, "ticked in a copy")
        time.sleep(0.002)

    async def turn() -> None:
        while time.monotonic() < end:
            beat()
            await asyncio.sleep(0)

    async def use_threads() -> None:
        while time.monotonic() < end:
            await asyncio.gather(sync_to_async(beat)(), asyncio.to_thread(beat))

    audit(path, "ticks")
    # By tasks of the loop: a copy is not stopped where the coroutine itself goes on.
    parts = [turn(), turn(), use_threads(), use_threads()]
    await asyncio.gather(*map(asyncio.create_task, parts))


@task
async def block_the_loop(seconds: float, path: str) -> None:
    audit(path, "blocks")
    time.sleep(seconds)


@task
def reset_alarm() -> None:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)


@task(max_attempts=1)
def speak_up() -> None:
    """Write to the terminal in every way, and fail."""
    print("printed by a task")  # noqa: T201
    sys.stderr.write("written by a task\n")
    warnings.warn("a warning of a task", stacklevel=1)
    logging.getLogger("shop").error("two\nlines of a logger")
    raise ValueError("spoken")


@task
def murmur() -> None:
    """Print without the end of a line, also in a thread that outlives the task."""
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    print("murmured by a task", end="")  # noqa: T201

    def linger() -> None:
        print("murmured by a thread", end="")  # noqa: T201
        is_said.set()
        time.sleep(60)

    is_said = threading.Event()
    threading.Thread(target=linger, daemon=True).start()
    is_said.wait()


@task
async def async_murmur() -> None:
    print("murmured by a coroutine", end="")  # noqa: T201


# Here, so that a worker knows their tasks: this module is the one it looks for.
from tests.processes import oddities, wrecking  # noqa: E402, F401


@task
def say_time(path: str, name: str, line: str) -> None:
    """Say the time, which all processes share, until somebody writes a line."""
    while line not in Path(path).read_text().splitlines():
        audit(path, f"tick {name} {os.getpid()} {time.monotonic()}")
        time.sleep(0.02)
