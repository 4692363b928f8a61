"""Run the suite once on every database: ``python -m tests [options of pytest]``.

A server that is not reachable is named at the end; when ``CI`` is set that is an
error. ``DJANGO_JOBS_TEST_DATABASES`` names other databases, or fewer of them.
"""

import os
import subprocess
import sys

DATABASES = "sqlite,postgresql,mariadb"
# Many tests wait for processes of their own: together they take half as long.
PARALLEL = ["-n", "3", "--dist", "worksteal"]
OUTCOMES = {0: "passed", 5: "NOT RUN"}  # the exit codes of pytest


def main() -> int:
    names = os.environ.get("DJANGO_JOBS_TEST_DATABASES", DATABASES).split(",")
    codes = {name: run(name) for name in names}
    for name, code in codes.items():
        sys.stdout.write(f"{name:12}{OUTCOMES.get(code, 'FAILED')}\n")
    allowed = {0} if os.environ.get("CI") else {0, 5}
    return 0 if allowed.issuperset(codes.values()) else 1


def run(name: str) -> int:
    environment = {**os.environ, "DJANGO_JOBS_TEST_DATABASE": name}
    # Hundreds of processes import the same: it is compiled once.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    command = [sys.executable, "-m", "pytest", "-o", f"cache_dir=.pytest_cache/{name}"]
    code = subprocess.call([*command, *PARALLEL, *sys.argv[1:]], env=environment)
    if code == 1 and os.environ.get("CI"):
        # They measure time on a machine that may be busy with something else.
        sys.stdout.write(f"SECOND LOOK: what failed on {name}, one at a time\n")
        sys.stdout.flush()
        again = [*command, "--last-failed", *sys.argv[1:]]
        code = subprocess.call(again, env=environment)
    return code


if __name__ == "__main__":
    sys.exit(main())
