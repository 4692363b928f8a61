"""Rolling deploys: old and new code beside each other, before and after a migration."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import pytest
from django.db import connection, connections
from pytest_django import DjangoDbBlocker

from django_jobs.models import Attempt, Result, Task
from django_jobs.states import State
from tests.conftest import environment_of_workers
from tests.processes import releases
from tests.processes.deploying import Fleet, fleet, trouble
from tests.processes.harness import WorkerProcess, slowness, wait_for
from tests.processes.releases import Release
from tests.scratch import SCRATCH, scratch_database

pytestmark = [pytest.mark.faults, pytest.mark.matrix(whole="mariadb")]

Env = dict[str, str]
#: What a worker of new code says to tables that are not migrated yet.
REFUSAL = "run manage.py migrate --database default"

#: A migration waits so long for a lock, and workers behind it, in seconds.
LOCK_WAIT = 5.0


@pytest.fixture
def base(django_db_blocker: DjangoDbBlocker, tmp_path: Path) -> Iterator[Env]:
    """The environment of processes on a database without tables."""
    with django_db_blocker.unblock(), scratch_database(tmp_path) as name:
        yield {**environment_of_workers(), "DJANGO_JOBS_TEST_NAME_DEFAULT": name}


@pytest.fixture
def ships(base: Env, tmp_path: Path) -> Iterator[Fleet]:
    with fleet(tmp_path) as made:
        yield made


def earlier(commit: Callable[[], str], folder: Path, base: Env) -> Release:
    """Unpack an earlier release; a tree without history has none, and says so."""
    try:
        return releases.archived(commit(), folder, base, "earlier")
    except releases.NoHistory as error:
        pytest.skip(f"no earlier release to run beside this one: {error}")


def from_the_newest_migration(folder: Path, base: Env) -> tuple[Release, Release]:
    old = earlier(releases.before_the_newest_migration, folder, base)
    return old, releases.present(base)


def from_the_last_commit(folder: Path, base: Env) -> tuple[Release, Release]:
    old = earlier(releases.parent_of_the_last_commit, folder, base)
    return old, releases.present(base)


def to_the_next_release(folder: Path, base: Env) -> tuple[Release, Release]:
    """Needs no history: this release is the old one, beside one that is made up."""
    return releases.present(base), releases.next_release(folder, base)


@pytest.mark.parametrize(
    "step", [from_the_newest_migration, from_the_last_commit, to_the_next_release]
)
def test_old_and_new_workers_run_beside_each_other_while_the_tables_change(
    step: Callable[[Path, Env], tuple[Release, Release]],
    base: Env,
    tmp_path: Path,
    ships: Fleet,
    request: pytest.FixtureRequest,
) -> None:
    old, new = step(tmp_path / "tree", base)
    old.migrate()
    is_migrated = not missing_migrations(new)
    old_worker, old_producer = ships.started(old), ships.producer(old)
    ships.wait_for_more(old.name)

    # New code before its migration: it enqueues, and its workers say what to do.
    new_producer = ships.producer(new)
    new_producer.wait_for_more()
    if not is_migrated:
        early = ships.worker(new)
        assert early.wait(60) == 1
        assert REFUSAL in early.output()
        assert "Traceback" not in early.output()
    ships.wait_for_more(old.name)

    new.migrate()
    assert missing_migrations(new) == []

    # Old code after it goes on, alone and beside new code.
    ships.wait_for_more(old.name)
    old_producer.wait_for_more()
    new_worker = ships.started(new)
    ships.wait_for_more(new.name)
    ships.wait_for_more(old.name)
    assert old_worker.stop(60) == 0
    ships.wait_for_more(new.name)

    # And back: old code starts on the new tables.
    last_worker = ships.started(old)
    ships.wait_for_more(old.name)
    assert new_worker.stop(60) == 0

    for producer in (old_producer, new_producer):
        producer.stop()
    ships.wait_until_done()
    assert last_worker.stop(60) == 0
    assert [trouble(each) for each in (old_worker, new_worker, last_worker)] == [[]] * 3
    count = ships.check_accounts()
    line = f"deploy {step.__name__}, {connection.vendor}, {count} tasks, none lost"
    request.node.user_properties.append(("figure", line))


def missing_migrations(release: Release) -> list[str]:
    """Return the migrations that a release has and the database has not had."""
    shown = release.manage("showmigrations", "django_jobs", "--plan")
    assert shown.returncode == 0, shown.stderr
    return [line for line in shown.stdout.splitlines() if line.startswith("[ ]")]


# -- a lock that somebody else has -----------------------------------------------------


@contextmanager
def reading_tasks() -> Iterator[None]:
    """Have a session read the tasks in a transaction, which it leaves open."""
    forgetful = connections[SCRATCH].copy()
    try:
        with forgetful.cursor() as cursor:
            cursor.execute("BEGIN")
            cursor.execute(f"SELECT COUNT(*) FROM {Task._meta.db_table}")
            cursor.fetchone()
            yield
    finally:
        forgetful.close()


def longest_silence() -> float:
    """Return the longest time between two results, in seconds."""
    times = Result.objects.using(SCRATCH).values_list("finished_at", flat=True)
    pairs = itertools.pairwise(sorted(times))
    return max((later - earlier).total_seconds() for earlier, later in pairs)


@pytest.mark.skipif(connection.vendor == "sqlite", reason="not on sqlite")
def test_a_migration_behind_a_long_transaction_gives_up_and_workers_go_on(
    base: Env, tmp_path: Path, ships: Fleet, request: pytest.FixtureRequest
) -> None:
    old, new = to_the_next_release(tmp_path / "tree", base)
    old.migrate()
    worker, producer = ships.started(old), ships.producer(old)
    ships.wait_for_more(old.name)
    with reading_tasks():
        done = new.manage("migrate", "django_jobs")
        assert done.returncode == 1
        assert "gave up after waiting for a lock" in done.stderr
        assert "manage.py migrate --database default again" in done.stderr
        assert "Traceback" not in done.stderr
        # The transaction is still open.
        ships.wait_for_more(old.name)
    silence = longest_silence()
    line = f"migration behind a transaction, {connection.vendor}, "
    line += f"nothing finished for {silence:.2f} s"
    request.node.user_properties.append(("figure", line))
    # It did wait, with the workers behind it, and no longer than it may.
    assert LOCK_WAIT - 1 < silence < LOCK_WAIT + 1.5 * slowness()
    new.migrate()
    assert missing_migrations(new) == []
    ships.wait_for_more(old.name)
    producer.stop()
    ships.wait_until_done()
    assert worker.stop(60) == 0
    assert trouble(worker, "contended alias=default") == []
    ships.check_accounts()


# -- tasks that change with a release --------------------------------------------------


@pytest.fixture
def old(base: Env) -> Release:
    release = releases.present(base, name="older")
    release.migrate()
    return release


def newer(base: Env, *features: str) -> Release:
    return releases.present(base, *features, name="newer")


def task(key: UUID) -> Task:
    return Task.objects.using(SCRATCH).get(pk=key)


def result(key: UUID) -> Result | None:
    return Result.objects.using(SCRATCH).filter(pk=key).first()


def is_stray(key: UUID) -> bool:
    row = task(key)
    return row.state == State.SCHEDULED and row.unknown_since is not None


def says_unknown(worker: WorkerProcess) -> list[str]:
    return re.findall(r"event=unknown_task task=(\S+)", worker.output())


def test_a_task_that_only_new_code_knows_waits_for_it(
    base: Env, old: Release, ships: Fleet, request: pytest.FixtureRequest
) -> None:
    new = newer(base, "novelty")
    old_worker = ships.started(old)
    keys = [ships.enqueue(new, "novelty", f"{number}") for number in range(3)]
    wait_for(lambda: all(map(is_stray, keys)), words="given back")
    new_worker = ships.started(new)
    begin = time.monotonic()
    wait_for(lambda: all(map(result, keys)), words="run by new code")
    seconds = time.monotonic() - begin
    # Beside a worker that does not know them and takes them as often.
    assert seconds < 2 * slowness()
    line = f"three tasks of new code, {connection.vendor}, run in {seconds:.2f} s"
    request.node.user_properties.append(("figure", line))
    assert ships.runs() == ["newer 0", "newer 1", "newer 2"]
    assert {result(key).attempt for key in keys} == {1}  # type: ignore[union-attr]
    assert says_unknown(old_worker) == ["fleet.tasks.novelty"]
    assert says_unknown(new_worker) == []
    for worker in (old_worker, new_worker):
        assert worker.stop() == 0
        assert trouble(worker, "event=unknown_task") == []


def test_a_task_that_new_code_has_no_more_waits_for_old_code(
    base: Env, old: Release, ships: Fleet
) -> None:
    new_worker = ships.started(newer(base, "removed"))
    key = ships.enqueue(old, "resize", "a")
    wait_for(lambda: is_stray(key), words="given back")
    ships.started(old)
    wait_for(lambda: result(key), words="run by old code")
    assert ships.runs() == ["older resize a"]
    assert says_unknown(new_worker) == ["fleet.tasks.resize"]


def test_a_renamed_task_that_keeps_its_old_name_too_runs_everywhere(
    base: Env, old: Release, ships: Fleet
) -> None:
    new = newer(base, "renamed")
    old_worker = ships.started(old)
    by_new_name = ships.enqueue(new, "scale", "b")
    wait_for(lambda: is_stray(by_new_name), words="given back")
    by_old_name = ships.enqueue(new, "resize", "a")
    wait_for(lambda: result(by_old_name), words="run by old code")
    assert old_worker.stop() == 0
    late = ships.enqueue(old, "resize", "c")
    new_worker = ships.started(new)
    wait_for(lambda: result(by_new_name) and result(late), words="run by new code")
    assert ships.runs() == ["newer scale b", "newer scale c", "older resize a"]
    assert says_unknown(new_worker) == []


def test_a_new_argument_is_retried_until_new_code_gets_it(
    base: Env, old: Release, ships: Fleet
) -> None:
    new = newer(base, "signature")
    old_worker = ships.started(old)
    without = ships.enqueue(new, "greet", "a")
    wait_for(lambda: result(without), words="run by old code")
    loud = ships.enqueue(new, "greet", "b", loudly=True)
    attempts = Attempt.objects.using(SCRATCH).filter(task_id=loud)
    wait_for(lambda: attempts.filter(verdict="retry").exists(), words="failed")
    ships.started(new)
    wait_for(lambda: result(loud), words="run by new code")
    words = "greet() got an unexpected keyword argument 'loudly'"
    assert set(attempts.values_list("message", flat=True)) == {words}
    assert words in old_worker.output()
    assert ships.runs() == ["newer b", "older a"]
    assert result(loud).return_value == '"Hello b!"'  # type: ignore[union-attr]
    assert old_worker.stop() == 0
    # Enqueued by the release before, run by this one.
    past = ships.enqueue(old, "greet", "c")
    wait_for(lambda: result(past), words="run by new code")
    assert result(past).return_value == '"Hello c"'  # type: ignore[union-attr]
