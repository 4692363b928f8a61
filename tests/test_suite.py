"""A database that is not there is no success of the suite."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
NOWHERE = "postgres://postgres@127.0.0.1:1/none"


@pytest.mark.parametrize("parallel", [[], ["-n", "1"]], ids=["alone", "parallel"])
@pytest.mark.parametrize(
    ("ci", "code", "said"),
    [
        ("", pytest.ExitCode.NO_TESTS_COLLECTED, "NOT RUN: postgresql not reachable"),
        ("true", pytest.ExitCode.USAGE_ERROR, "ERROR: postgresql not reachable"),
    ],
    ids=["at home", "in CI"],
)
def test_a_server_that_is_missing_is_told_aloud(
    parallel: list[str], ci: str, code: int, said: str
) -> None:
    ours = {key: value for key, value in os.environ.items() if "PYTEST" not in key}
    env = {
        **ours,
        "CI": ci,
        "DJANGO_JOBS_TEST_DATABASE": "postgresql",
        "DJANGO_JOBS_TEST_POSTGRESQL_URL": NOWHERE,
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, *parallel, "tests/test_texts.py"],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert said in done.stdout + done.stderr
