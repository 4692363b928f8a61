"""Play seeds: ``python -m tests.simulation --database postgresql --seeds 500``."""

from __future__ import annotations

import argparse
import os
import sys


def main() -> int:
    options = _options()
    os.environ["DJANGO_JOBS_TEST_DATABASE"] = options.database
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    import django

    django.setup()
    from tests.simulation.runs import play_seeds

    return play_seeds(options)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument(
        "--database",
        default="sqlite",
        choices=["sqlite", "postgresql", "mariadb", "mysql"],
    )
    parser.add_argument("--seed", type=int, help="play this seed alone")
    parser.add_argument("--seeds", type=int, default=2000, help="play so many")
    parser.add_argument("--first", type=int, default=0, help="from this one on")
    parser.add_argument("--seconds", type=float, help="stop after so long")
    parser.add_argument("--mutant", help="with this fault in the store")
    parser.add_argument("--verbose", action="store_true", help="print every statement")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
