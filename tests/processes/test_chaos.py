"""A short run of the chaos on the database of the suite, and its own end."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from django.conf import settings
from django.db import connection

from tests.processes.chaos.guard import processes_of
from tests.processes.chaos.servers import mariadb, postgresql
from tests.processes.harness import wait_for

pytestmark = pytest.mark.faults

#: Seconds of faults; with the start and the rest it is about 40 on an idle machine.
SECONDS = "20"
#: Of all faults; it is printed with the numbers, to be run again by hand.
SEED = "4"
COMMAND = [sys.executable, "-m", "tests.processes.chaos", "--seconds", SECONDS]


def url() -> str:
    """Return a server of the run's own where one can be started, else the suite's."""
    if settings.SERVER == "sqlite":
        return "sqlite://"
    if settings.SERVER == "postgresql":
        scheme, is_there = "postgres://", postgresql.programs() is not None
    else:
        scheme, is_there = "mysql://", mariadb.program("mariadbd") is not None
    given = connection.settings_dict
    user = f"{given['USER']}:{given['PASSWORD']}"
    return scheme if is_there else f"{scheme}{user}@{given['HOST']}:{given['PORT']}"


def start(*options: str, errors: Path) -> subprocess.Popen[str]:
    with errors.open("wb") as output:
        return subprocess.Popen(
            [*COMMAND, *options],
            cwd=Path(__file__).parents[2],
            stdout=subprocess.PIPE,
            stderr=output,
            text=True,
            start_new_session=True,
        )


def test_a_site_that_is_broken_in_all_ways_loses_nothing(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    errors = tmp_path / "progress.txt"
    process = start("--database", url(), "--seed", SEED, errors=errors)
    line, _ = process.communicate(timeout=300)
    record_property("figure", line.strip())
    told = errors.read_text()
    assert line, told
    report = json.loads(line)
    assert report["violations"] == {}, told
    assert (report["lost"], report["unexpected"]) == (0, 0)
    assert report["atomic_duplicated"] == 0
    assert report["duplicated"] <= report["duplicates_allowed"]
    assert report["finished"] >= report["acked"] > 100
    assert sum(report["hits"].values()) >= 3
    assert min(report[each] for each in ("revoked", "requeued", "pruned")) > 0
    assert process.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_all_that_a_run_has_started_ends_with_it(
    tmp_path: Path, requires: Callable[..., None], number: int
) -> None:
    requires("sqlite")
    errors = tmp_path / "progress.txt"
    process = start("--database", "sqlite://", errors=errors)
    wait_for(lambda: "strike" in errors.read_text(), 60, "the first fault")
    folder = Path(errors.read_text().partition("folder ")[2].split()[0])
    assert list(processes_of(folder))
    process.send_signal(number)
    process.communicate(timeout=30)
    wait_for(lambda: not folder.exists(), 30, "the folder is removed")
    assert list(processes_of(folder)) == []
