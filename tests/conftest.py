"""What every test may use, and the rule for a database that is not there."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn
from zlib import crc32

import pytest
from django.conf import settings
from django.db import connections
from django.db.backends.base.base import NO_DB_ALIAS
from django.db.utils import DatabaseError, InterfaceError
from pytest_django.plugin import blocking_manager_key

ROOT = Path(__file__).resolve().parent.parent
NOT_RUN = pytest.StashKey[str]()
#: In the reason of a test that is skipped since this machine lacks what it needs.
CANNOT = "NOT RUN"
_KINDS = ("sqlite", "postgresql", "mariadb")


def why_unreachable() -> str:
    """Empty when the chosen server answers, else one line that says why not."""
    connection = connections["default"]
    if connection.vendor == "sqlite":
        return ""
    where = connection.settings_dict
    server = type(connection)({**where, "NAME": None}, alias=NO_DB_ALIAS)
    try:
        server.ensure_connection()  # to no database: those of the tests are made later
        server.close()
    except (DatabaseError, InterfaceError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        address = f"{where['HOST']}:{where['PORT'] or 'its standard port'}"
        return f"{settings.SERVER} not reachable at {address} ({reason})"
    return ""


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Ask once, in this process too when others run the tests: it tells the end."""
    with session.config.stash[blocking_manager_key].unblock():
        reason = why_unreachable()
    if reason and os.environ.get("CI"):
        raise pytest.UsageError(reason)
    session.config.stash[NOT_RUN] = reason


def pytest_addoption(parser: pytest.Parser) -> None:
    words = "of the tests marked 'matrix' run a third, another one on each database"
    parser.addoption("--fast", action="store_true", help=words)


def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    if config.getoption("--fast"):
        keep_share(config, items)
    if reason := config.stash[NOT_RUN]:
        for item in items:
            item.add_marker(pytest.mark.skip(reason=reason))


def keep_share(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what the other databases run of the matrix."""
    own = settings.SERVER if settings.SERVER in _KINDS else "mariadb"
    if others := [item for item in items if own not in kinds_for(item)]:
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if item not in others]


def kinds_for(item: pytest.Item) -> Sequence[str]:
    """Return which databases run it: all, or of a matrix one, and who runs the whole.

    By name: who runs what does not depend on what else is run.
    """
    marker = item.get_closest_marker("matrix")
    if marker is None:
        return _KINDS
    among = marker.kwargs.get("among", _KINDS)
    chosen = among[crc32(item.nodeid.encode()) % len(among)]
    return chosen, marker.kwargs.get("whole", chosen)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if session.config.stash.get(NOT_RUN, ""):
        session.exitstatus = pytest.ExitCode.NO_TESTS_COLLECTED


def pytest_report_header() -> str:
    return f"database: {settings.SERVER} ({connections['default'].vendor})"


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    reason = config.stash.get(NOT_RUN, "")
    if reason:
        terminalreporter.write_line(f"NOT RUN: {reason}", yellow=True, bold=True)
    say_what_cannot_run(terminalreporter)
    for report in (
        *terminalreporter.getreports("passed"),
        *terminalreporter.getreports("failed"),
    ):
        for name, value in report.user_properties:
            if report.when != "call":
                continue
            if name == "figure":
                terminalreporter.write_line(f"figure: {value}")
            elif name == "degraded":
                line = f"DEGRADED: {report.nodeid}: {value}"
                terminalreporter.write_line(line, yellow=True, bold=True)


def say_what_cannot_run(terminalreporter: pytest.TerminalReporter) -> None:
    for report in terminalreporter.getreports("skipped"):
        words = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
        if CANNOT in words:
            line = f"{words.removeprefix('Skipped: ')}: {report.nodeid}"
            terminalreporter.write_line(line, yellow=True, bold=True)


def is_mariadb(connection: Any) -> bool:
    return bool(getattr(connection, "mysql_is_mariadb", False))


def cannot_run(reason: str) -> NoReturn:
    """Skip, aloud, for want of what is to be there; in CI that is an error."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(f"{CANNOT}: {reason}")


@pytest.fixture
def requires() -> Callable[..., None]:
    """Skip unless the database is one of the named: ``requires("postgresql")``.

    The names are those of ``connection.vendor``, and "mariadb" for what says of
    itself that it is MariaDB.
    """

    def check(*vendors: str) -> None:
        connection = connections["default"]
        if connection.vendor in vendors:
            return
        # Only who wants to know it asks the server.
        if "mariadb" not in vendors or not is_mariadb(connection):
            pytest.skip(f"only on {' and '.join(vendors)}")

    return check


@pytest.fixture
def worker_env(transactional_db: None) -> dict[str, str]:
    """The environment in which a process of its own uses this test's databases.

    ``subprocess.run([sys.executable, "-m", "django", "jobworker"], env=worker_env)``
    """
    return environment_of_workers()


def environment_of_workers() -> dict[str, str]:
    """Return that environment, for what is not done in the time of one test."""
    names = {
        f"DJANGO_JOBS_TEST_NAME_{each.alias.upper()}": str(each.settings_dict["NAME"])
        for each in connections.all()
    }
    paths = [str(ROOT), str(ROOT / "testproject")]
    return {
        **os.environ,
        **names,
        "DJANGO_JOBS_TEST_DATABASE": settings.SERVER,
        "DJANGO_SETTINGS_MODULE": "tests.settings",
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONUNBUFFERED": "1",
    }


def pytest_unconfigure() -> None:
    """SQLite leaves its side files behind when a process was killed."""
    if settings.SERVER == "sqlite":
        for connection in connections.all():
            connection.close()
            name = Path(connection.settings_dict["NAME"])
            for path in name.parent.glob(name.name + "*"):
                path.unlink(missing_ok=True)
