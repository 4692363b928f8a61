"""Seeds one after the other, for the command line."""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import nullcontext

from django.db import connection, connections

from tests.simulation.model import Violation
from tests.simulation.mutants import MUTANTS, active
from tests.simulation.play import play
from tests.simulation.scene import simulation


def play_seeds(options: argparse.Namespace) -> int:
    """Play the seeds asked for in a database of their own; return an exit code."""
    connection.creation.create_test_db(verbosity=0, autoclobber=True)
    try:
        return _play(options)
    finally:
        connections.close_all()
        name = connection.settings_dict["NAME"]
        connection.creation.destroy_test_db(name, verbosity=0)


def _play(options: argparse.Namespace) -> int:
    seeds = range(options.first, options.first + options.seeds)
    if options.seed is not None:
        seeds = range(options.seed, options.seed + 1)
    begin, count = time.monotonic(), 0
    mutant = active(MUTANTS[options.mutant]) if options.mutant else nullcontext()
    with simulation() as here, mutant:
        for seed in seeds:
            if options.seconds and time.monotonic() - begin > options.seconds:
                break
            try:
                played = play(here, seed)
            except Violation as violation:
                sys.stdout.write(f"{violation}\n")
                return 1
            count += 1
            if options.verbose:
                sys.stdout.write("\n".join(played.lines()) + "\n")
        seconds = time.monotonic() - begin
        sys.stdout.write(
            f"{count} seeds in {seconds:.1f} s: {here.jobs} jobs, {here.steps} "
            f"statements, {here.faults} faults; nothing was lost or doubled\n"
        )
    return 0
