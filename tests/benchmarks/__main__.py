"""``python -m tests.benchmarks scoreboard``: reliability, beside the peers.

Makes an environment for each peer, starts a PostgreSQL and a Redis of its own, and lets
each scenario happen to each peer, one after the other. ``--repeat 2`` runs
everything twice more. Writes the numbers as JSON and the table as Markdown.
"""

from __future__ import annotations

import argparse
import json
import shlex
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from tests.benchmarks import table
from tests.benchmarks.peers import PEERS
from tests.benchmarks.runner import Run
from tests.benchmarks.scenarios import SCENARIOS

Item = TypeVar("Item")


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    for found in options.run(options):
        if options.json:  # after each cell: a run that is broken off has results too
            options.json.write_text(json.dumps(found, indent=1) + "\n")
    if options.page:
        table.write(found, options.page)
    else:
        sys.stdout.write(table.render(found) + "\n")
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks")
    commands = parser.add_subparsers(required=True)
    board = commands.add_parser("scoreboard", help="reliability, beside the peers")
    board.add_argument("--peers", help="with commas between them; all by default")
    board.add_argument("--scenarios", help="likewise")
    board.add_argument(
        "--repeat", type=int, default=0, help="everything so often again"
    )
    board.add_argument("--cache", type=Path, help="where the environments are kept")
    board.add_argument("--python", default=sys.executable, help="that of the peers")
    board.set_defaults(run=scoreboard)
    show = commands.add_parser("table", help="the table of results that are there")
    show.add_argument("results", type=Path, nargs="+", help="JSON files, to be joined")
    show.set_defaults(run=lambda options: [joined(options.results)])
    for each in (board, show):
        each.add_argument("--json", type=Path, help="where the numbers are written")
        each.add_argument("--page", type=Path, help="a page that has the two markers")
    return parser.parse_args(arguments)


def scoreboard(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield the results again and again, each time with a further cell."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # nothing is left running
    peers = chosen(PEERS, options.peers)
    scenarios = chosen(SCENARIOS, options.scenarios)
    with tempfile.TemporaryDirectory(prefix="benchmark-") as name:
        folder = Path(name)
        folder.chmod(0o711)  # servers run as users of their own
        cache = (options.cache or folder / "environments").resolve()
        run = Run(cache, options.python, folder / "run", repeats=options.repeat)
        for found in run.go(peers, scenarios):
            yield {"command": command(options), **found}


def command(options: argparse.Namespace) -> str:
    """Return what somebody else would have to type."""
    words = ["python", "-m", "tests.benchmarks", "scoreboard"]
    for option in ("peers", "scenarios", "repeat"):
        if value := getattr(options, option):
            words += [f"--{option}", str(value)]
    return shlex.join(words)


def chosen(items: Mapping[str, Item], names: str | None) -> list[Item]:
    wanted = [*items] if names is None else names.split(",")
    if unknown := [name for name in wanted if name not in items]:
        raise SystemExit(f"unknown: {', '.join(unknown)}; there are {', '.join(items)}")
    return [items[name] for name in wanted]


def joined(paths: Sequence[Path]) -> dict[str, Any]:
    """Return the results of several runs as one; later ones replace earlier cells."""
    first, *others = [json.loads(path.read_text()) for path in paths]
    cells = {(each["peer"], each["scenario"]): each for each in first["cells"]}
    for other in others:
        first["peers"].update(other["peers"])
        cells.update(
            {(each["peer"], each["scenario"]): each for each in other["cells"]}
        )
    peers = [name for name in PEERS if name in first["peers"]]
    first["peers"] = {name: first["peers"][name] for name in peers}
    commands = dict.fromkeys(each["command"] for each in (first, *others))
    return {**first, "command": "\n$ ".join(commands), "cells": [*cells.values()]}


if __name__ == "__main__":
    sys.exit(main())
