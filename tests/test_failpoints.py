"""Failpoints: how they are written, when they strike, and what they do then."""

from __future__ import annotations

import ast
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, InterfaceError, connection

from django_jobs import checks, failpoints
from django_jobs.failpoints import ACTIONS, POINTS, TARGETS, FailpointReached, reach
from tests.doc_pages import read, section, tables
from tests.sampleapp.tasks import add

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "django_jobs"
Arm = Callable[[str], None]


@pytest.fixture
def arm(monkeypatch: pytest.MonkeyPatch) -> Arm:
    """Set the rules of this process as if it had started with the variable."""

    def set_rules(text: str) -> None:
        monkeypatch.setattr(failpoints, "_rules", failpoints.read(text))

    return set_rules


# -- the table ---------------------------------------------------------------------


def _points_in_the_code() -> Iterator[str]:
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "reach":
                [point] = node.args
                assert isinstance(point, ast.Constant), path
                yield str(point.value)


def test_the_points_of_the_table_are_those_that_the_code_reaches() -> None:
    assert set(_points_in_the_code()) == set(POINTS)


def test_the_tables_cannot_be_changed() -> None:
    for table in (POINTS, ACTIONS, TARGETS):
        with pytest.raises(TypeError):
            table["new"] = ""  # type: ignore[index]


@pytest.mark.parametrize(
    ("heading", "table"),
    [("The points", POINTS), ("What can happen", ACTIONS), ("To whom", TARGETS)],
)
def test_the_guide_has_the_same_table(heading: str, table: dict[str, str]) -> None:
    page = section(read("howto/crashes.md"), heading)
    shown = {row[0].strip("`").partition("(")[0]: row[1] for row in tables(page)}
    assert shown == table


# -- how a rule is written ---------------------------------------------------------


def test_rules_are_read_in_every_form(tmp_path: Path) -> None:
    text = (
        "claim.before=kill9; child.mid_run=stop:parent@3 ;"
        f"child.mid_run=sleep(0.5),once={tmp_path}/a,b;enqueue.deferred=dbdrop(other)@1"
    )
    [claim], [stop, sleep], [drop] = failpoints.read(text).values()
    assert (claim.action, claim.target, claim.nth, claim.once) == (
        "kill9",
        "self",
        0,
        "",
    )
    assert (stop.action, stop.target, stop.nth) == ("stop", "parent", 3)
    assert (sleep.argument, sleep.once) == ("0.5", f"{tmp_path}/a,b")
    assert (drop.argument, drop.nth) == ("other", 1)


@pytest.mark.parametrize("text", ["", " ", ";", " ; "])
def test_nothing_is_no_rule(text: str) -> None:
    assert failpoints.read(text) == {}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("claim.befor=kill9", "There is no point 'claim.befor'. Did you mean 'claim.b"),
        ("=kill9", "There is no point ''."),
        ("claim.before", "'claim.before' is not of the form POINT=ACTION"),
        ("claim.before=kill9 or not(1)x", "is not of the form"),
        ("claim.before=kill", "There is no action 'kill'. Did you mean 'kill9'?"),
        ("claim.before=", "There is no action ''. Try kill9, stop,"),
        (
            "claim.before=kill9:parnt",
            "There is no target 'parnt'. Did you mean 'par",
        ),
        ("claim.before=kill9:", "There is no target ''."),
        ("claim.before=kill9@0", "@0 is no number from 1 on."),
        ("claim.before=kill9@", "@ is no number from 1 on."),
        ("claim.before=kill9@1.5", "@1.5 is no number from 1 on."),
        ("claim.before=kill9(2)", "kill9 takes no argument."),
        ("claim.before=sleep", "sleep needs a number of seconds"),
        ("claim.before=sleep(-1)", "sleep needs a number of seconds"),
        ("claim.before=exit:child", "exit strikes only the process itself."),
        ("claim.before=kill9,once=", "once= is no path in a folder that is there."),
        ("claim.before=kill9,once=mark", "once=mark is no path in a folder"),
        ("claim.before=kill9,once=/no/such/mark", "once=/no/such/mark is no path"),
    ],
)
def test_a_wrong_rule_is_refused_and_says_what_is_wrong(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        failpoints.read(f"claim.after_commit=exit; {text}")


def test_a_check_tells_what_is_wrong(monkeypatch: pytest.MonkeyPatch, arm: Arm) -> None:
    assert checks.check_settings() == []
    arm("claim.before=dbdrop; claim.before=dbdrop(wrong)")
    [message] = checks.check_settings()
    assert message.id == "django_jobs.E018"
    assert message.msg == "DJANGO_JOBS_FAILPOINTS: There is no database 'wrong'."
    monkeypatch.setattr(failpoints, "problem", "It is wrong.")
    assert {each.msg for each in checks.check_settings()} > {"It is wrong."}


def _run(code: str, text: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", f"from django_jobs import failpoints\n{code}"],
        cwd=ROOT,
        env={**os.environ, failpoints.VARIABLE: text},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_where_nobody_checks_the_first_point_tells_what_is_wrong() -> None:
    done = _run("failpoints.reach('claim.after_commit')", "claim.befor=kill9")
    assert done.returncode == 1
    name = f"{ImproperlyConfigured.__module__}.{ImproperlyConfigured.__qualname__}"
    words = f"{name}: DJANGO_JOBS_FAILPOINTS: There is no point 'claim.befor'."
    assert words in done.stderr


# -- when it strikes ---------------------------------------------------------------


def test_nothing_happens_as_a_rule() -> None:
    assert failpoints.rules() == []
    for point in POINTS:
        reach(point)


def test_it_strikes_every_time_at_its_point_only(arm: Arm) -> None:
    arm("claim.before=raise")
    reach("claim.after_commit")
    for _ in range(3):
        with pytest.raises(FailpointReached, match=r"claim\.before was reached"):
            reach("claim.before")


def test_it_can_strike_at_the_nth_time_only(arm: Arm) -> None:
    arm("claim.before=raise@2")
    reach("claim.before")
    with pytest.raises(FailpointReached):
        reach("claim.before")
    reach("claim.before")


def test_it_can_strike_once_in_all_processes(arm: Arm, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    text = f"claim.before=raise,once={marker}"
    arm(text)
    with pytest.raises(FailpointReached):
        reach("claim.before")
    assert marker.read_text() == f"claim.before raise {os.getpid()}\n"
    reach("claim.before")
    assert _run("failpoints.reach('claim.before')", text).returncode == 0
    marker.unlink()
    done = _run("failpoints.reach('claim.before')", text)
    assert "FailpointReached: the failpoint claim.before was reached" in done.stderr


def test_once_and_the_nth_time_are_both_needed(arm: Arm, tmp_path: Path) -> None:
    arm(f"claim.before=raise@2,once={tmp_path}/marker")
    reach("claim.before")
    assert not list(tmp_path.iterdir())
    with pytest.raises(FailpointReached):
        reach("claim.before")


def test_several_rules_of_a_point_come_one_after_the_other(arm: Arm) -> None:
    arm("claim.before=sleep(0.2); claim.before=raise")
    before = time.monotonic()
    with pytest.raises(FailpointReached):
        reach("claim.before")
    assert time.monotonic() - before >= 0.2


def test_a_strike_has_a_line_in_the_log(
    arm: Arm, caplog: pytest.LogCaptureFixture
) -> None:
    arm("claim.before=sleep(0)")
    reach("claim.before")
    [record] = caplog.records
    words = f"event=failpoint point=claim.before action=sleep pids={os.getpid()}"
    assert (record.levelname, record.getMessage()) == ("WARNING", words)


# -- what it does ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "code"),
    [("kill9", -signal.SIGKILL), ("segfault", -signal.SIGSEGV), ("exit", 0)],
)
def test_a_process_ends_at_once(action: str, code: int) -> None:
    done = _run(
        "import atexit; atexit.register(print, 'ended in good order')\n"
        "print('before', flush=True); failpoints.reach('claim.before'); print('after')",
        f"claim.before={action}",
    )
    assert (done.returncode, done.stdout) == (code, "before\n")


def test_an_oserror_is_one_of_input_and_output(arm: Arm) -> None:
    arm("claim.before=oserror")
    with pytest.raises(OSError, match=r"Errno 5.*claim\.before"):
        reach("claim.before")


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc for the state")
def test_a_process_is_stopped_and_goes_on() -> None:
    code = "from django_jobs import failpoints; failpoints.reach('claim.before')"
    with subprocess.Popen(
        [sys.executable, "-c", f"{code}; print('went on')"],
        cwd=ROOT,
        env={**os.environ, failpoints.VARIABLE: "claim.before=stop"},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        stat = Path(f"/proc/{process.pid}/stat")
        deadline = time.monotonic() + 20
        while stat.read_text().rpartition(")")[2].split()[0] != "T":
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGCONT)
        assert process.communicate(timeout=20) == ("went on\n", None)


FAMILY = """
import multiprocessing, sys
from django_jobs.failpoints import reach

def child(ready, go, reaches):
    ready.send(1)
    go.recv()
    if reaches:
        reach("child.mid_run")

if __name__ == "__main__":
    context = multiprocessing.get_context("forkserver")
    ready_here, ready_there = context.Pipe()
    pipes = [context.Pipe() for _ in range(2)]
    children = [
        context.Process(target=child, args=(ready_there, there, not number))
        for number, (here, there) in enumerate(pipes)
    ]
    for each in children:
        each.start()
        ready_here.recv()
    if "parent" in sys.argv:
        reach("claim.before")
    else:
        pipes[0][0].send(1)
    children[0].join(20)
    print(children[0].exitcode, flush=True)
    children[1].join(0.2)
    print(children[1].exitcode, flush=True)
    children[1].kill()
"""


@pytest.mark.parametrize(
    ("who", "target", "expected"),
    [
        ("child", "self", (0, "-9\nNone\n")),
        ("child", "child", (0, "-9\nNone\n")),
        ("child", "parent", (-9, "")),
        ("parent", "self", (-9, "")),
        ("parent", "parent", (-9, "")),
        ("parent", "child", (0, "-9\n-9\n")),
    ],
)
def test_a_signal_reaches_whom_it_is_meant_for(
    tmp_path: Path, who: str, target: str, expected: tuple[int, str]
) -> None:
    script = tmp_path / "family.py"
    script.write_text(FAMILY)
    point = {"child": "child.mid_run", "parent": "claim.before"}[who]
    done = subprocess.run(
        [sys.executable, str(script), who],
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            failpoints.VARIABLE: f"{point}=kill9:{target}",
        },
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == expected


def test_children_that_are_not_there_use_up_no_marker(arm: Arm, tmp_path: Path) -> None:
    arm(f"claim.before=kill9:child,once={tmp_path}/marker")
    reach("claim.before")
    assert not list(tmp_path.iterdir())


# -- a connection that is cut --------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_a_connection_is_cut_and_the_next_one_works(arm: Arm) -> None:
    arm("claim.before=dbdrop")
    connection.ensure_connection()
    reach("claim.before")
    with pytest.raises((DatabaseError, InterfaceError)):
        connection.cursor().execute("SELECT 1")
    connection.close()
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        assert cursor.fetchone() == (1,)


@pytest.mark.django_db(transaction=True)
def test_without_a_connection_there_is_nothing_to_cut(arm: Arm) -> None:
    arm("claim.before=dbdrop")
    connection.close()
    reach("claim.before")
    assert connection.connection is None


@pytest.mark.django_db(transaction=True)
def test_an_enqueue_outside_a_transaction_survives_a_cut(arm: Arm) -> None:
    connection.ensure_connection()
    arm("enqueue.before_insert=dbdrop@1")
    if connection.vendor == "sqlite":
        with pytest.raises(DatabaseError, match="closed"):  # no fault of a network
            add.enqueue(1)
        connection.close()
    assert add.enqueue(1).status == "READY"


@pytest.mark.parametrize("driver", ["that tells its descriptor", "PyMySQL"])
def test_the_socket_of_a_driver_is_found(
    arm: Arm, monkeypatch: pytest.MonkeyPatch, driver: str
) -> None:
    ours, theirs = socket.socketpair()
    raw = SimpleNamespace(_sock=ours) if driver == "PyMySQL" else ours
    wrapper = SimpleNamespace(connection=raw, vendor="some server")
    monkeypatch.setattr(failpoints, "connections", {"other": wrapper})
    arm("claim.before=dbdrop(other)")
    with ours, theirs:
        reach("claim.before")
        assert theirs.recv(1) == b""
        assert ours.fileno() > 0  # the driver's own is open, as after a cut
        reach("claim.before")  # and cutting it again is no error
