"""A progress bar with rate and time to go: by rich, or in plain text."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TextIO

Update = Callable[[int], None]
PLAIN_LINE_EVERY = 5.0
# Fixed, so that the line does not fill the terminal: the ^C that the terminal echoes
# would else begin a new line, and the bar be drawn a second time below it.
WIDTH = 30


@contextmanager
def bar(out: TextIO, total: int, done: int) -> Iterator[Update]:
    """Show how far the work is; call what this yields with the number done."""
    make = _rich if is_live(out) and find_spec("rich") else _plain
    with make(out, total, done) as update:
        yield update


def is_live(out: TextIO) -> bool:
    """May a line be written over? Not in a file, nor where plain text is asked for."""
    is_plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return out.isatty() and not is_plain


@contextmanager
def _rich(out: TextIO, total: int, done: int) -> Iterator[Update]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        BarColumn(bar_width=WIDTH),
        MofNCompleteColumn(),
        TextColumn("tasks"),
        TextColumn("{task.fields[rate]:,.0f}/s"),
        TimeRemainingColumn(),
    )
    rate = Rate(total, done)
    with Progress(*columns, console=Console(file=out)) as progress:
        shown = progress.add_task("", total=total, completed=done, rate=0)
        yield lambda now: progress.update(shown, completed=now, rate=rate(now)[0])


@contextmanager
def _plain(out: TextIO, total: int, done: int) -> Iterator[Update]:
    """One line that is written over, or where that is not possible one now and then."""
    live = is_live(out)
    rate = Rate(total, done)
    last = 0.0

    def update(now: int) -> None:
        nonlocal last
        if not live and now < total and time.monotonic() - last < PLAIN_LINE_EVERY:
            return
        last = time.monotonic()
        per_second, to_go = rate(now)
        filled = "#" * (WIDTH * now // max(total, 1))
        counts = f"{now:,}/{total:,} tasks, {per_second:,.0f}/s, {to_go} to go"
        line = f"[{filled:.<{WIDTH}}] {counts}"
        out.write(f"\r{line:75}" if live else f"{line}\n")
        out.flush()

    try:
        yield update
    finally:
        if live:
            out.write("\n")


class Rate:
    """Tasks per second since the start of this run, and the time to go."""

    def __init__(self, total: int, done: int) -> None:
        self.total, self.done = total, done
        self.started = time.monotonic()

    def __call__(self, now: int) -> tuple[float, str]:
        per_second = (now - self.done) / max(time.monotonic() - self.started, 1e-9)
        if not per_second:
            return 0.0, "?"
        seconds = round((self.total - now) / per_second)
        return per_second, f"{seconds // 60}:{seconds % 60:02}"
