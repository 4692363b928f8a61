"""``python -m tests.processes.chaos --database URL --seconds N --seed S``."""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
from contextlib import ExitStack
from types import FrameType
from typing import Any

import django

from tests.processes.chaos.faults import FAULTS
from tests.processes.chaos.journal import Journal
from tests.processes.chaos.nursery import Nursery
from tests.processes.chaos.servers import open_server
from tests.processes.chaos.servers.base import Server
from tests.processes.chaos.site import Site, Size

EPILOG = """
The URL of a server that is given: postgres://postgres@127.0.0.1:5432/postgres or
mysql://root@127.0.0.1:3306/. A database is made there, and removed; faults that would
harm the server are left out. Without a host (postgres://, mysql://) a server of our own
is started, and there are no limits. sqlite:// makes a file.
"""


def main() -> int:
    options = read_options()
    if options.list_faults:
        for name, fault in FAULTS.items():
            sys.stdout.write(f"{name:24}{fault.__doc__}\n")
        return 0
    signal.signal(signal.SIGTERM, _interrupt)
    with ExitStack() as stack:
        report = run(options, stack)
    sys.stdout.write(json.dumps(report, allow_nan=False) + "\n")
    return 0 if report["valid"] else 1


def run(options: argparse.Namespace, stack: ExitStack) -> dict[str, Any]:
    """Build the site, break it, and return the verdict."""
    journal = Journal()
    nursery = Nursery(keep=options.keep)
    stack.callback(nursery.close)
    journal.say(f"seed {options.seed}, folder {nursery.folder}")
    server = open_server(options.database, nursery)
    stack.callback(server.stop)
    server.start()
    set_up_django(server)
    # Late: they are of no use before Django is set up.
    from tests.processes.chaos.run import Run

    producers = options.producers or server.producers
    size = Size(options.workers, producers, options.pause, str(options.seed))
    site = Site(nursery, server, size, journal)
    stack.callback(site.close)
    chosen = [FAULTS[name] for name in options.faults]
    run = Run(
        *(site, chosen, options.seconds, str(options.seed), options.away),
        floors=dict(options.at_least),
    )
    words = {"database": server.kind, "seed": options.seed, "seconds": options.seconds}
    return {**words, **run.run()}


def set_up_django(server: Server) -> None:
    """Have this process reach the database directly, past all that is between."""
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.processes.chaos.settings"
    os.environ["CHAOS_DATABASE"] = json.dumps(server.settings(server.addresses))
    os.environ["DJANGO_JOBS_TEST_DATABASE"] = server.kind
    django.setup()


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.processes.chaos",
        description="Break a site in all ways, and count every task.",
        epilog=EPILOG,
    )
    parser.add_argument("--database", default="sqlite://", metavar="URL")
    parser.add_argument("--seconds", type=float, default=60, metavar="N")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--workers", type=int, default=3, metavar="N")
    parser.add_argument("--producers", type=int, metavar="N")
    parser.add_argument(
        "--pause",
        type=float,
        default=0.03,
        metavar="S",
        help="of a producer between two calls, on average (default: %(default)s)",
    )
    parser.add_argument(
        "--faults",
        type=_faults,
        default=list(FAULTS),
        metavar="a,b",
        help="only these (see --list-faults)",
    )
    parser.add_argument(
        "--away",
        type=float,
        default=0.0,
        metavar="S",
        help="have the server, if it is ours, away once for so many seconds",
    )
    parser.add_argument(
        "--at-least",
        type=_floor,
        action="append",
        default=[],
        metavar="NAME=N",
        help="a number of the report that makes it invalid when it is lower",
    )
    parser.add_argument("--list-faults", action="store_true")
    parser.add_argument(
        "--keep", action="store_true", help="keep the folder with logs and databases"
    )
    return parser.parse_args()


def _floor(text: str) -> tuple[str, int]:
    name, _, number = text.partition("=")
    return name, int(number)


def _faults(text: str) -> list[str]:
    names = [name for name in text.split(",") if name]
    for name in names:
        if name not in FAULTS:
            raise argparse.ArgumentTypeError(f"no fault is called {name!r}")
    return names


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
