"""The public names: what importing them costs, and what type checkers make of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import django_jobs

ROOT = Path(__file__).resolve().parent.parent

IMPORT = """
import sys
import django.conf, django.db, django.dispatch
import django_jobs, django_jobs.decorators, django_jobs.producer
loaded = [name for name in sys.modules if name.split(".")[-1] == "models"]
assert not loaded, loaded
assert not [name for name in sys.modules if name.startswith("django_jobs.worker")]
assert "croniter" not in sys.modules
"""

DECLARE = """
from django.conf import settings
settings.configure()
from django_jobs import enqueue_many, task
def function(value: int) -> int: return value
definition = task(name="early", priority=5)(function)
definition.using(run_after=60, priority=1).s(1)
from django.apps import apps
assert not apps.ready
"""


def in_new_process(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )


NOT_INSTALLED = """
import django
from django.conf import settings
sqlite = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
settings.configure(DATABASES={"default": sqlite}, DJANGO_JOBS=<given>)
django.setup()
from django_jobs import exceptions, task
def function(): ...
function.__module__ = "imported"  # one of a script is refused before
try:
    task(name="early")(function).enqueue()
except exceptions.SetupError as error:
    assert "add 'django_jobs' to INSTALLED_APPS and run manage.py migrate" in str(error)
else:
    raise AssertionError
"""


@pytest.mark.parametrize("given", ["{}", "{'DATABASE': 'default'}"])
def test_an_app_that_is_not_installed_is_named(given: str) -> None:
    done = in_new_process(NOT_INSTALLED.replace("<given>", given))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("code", [IMPORT, DECLARE], ids=["import", "declare"])
def test_nothing_of_it_needs_models_or_apps(code: str) -> None:
    done = in_new_process(code)
    assert done.returncode == 0, done.stderr


def test_importing_costs_little_beyond_django_itself() -> None:
    code = (
        "import django.conf, django.db, django.dispatch, django.utils.translation\n"
        "import asgiref.sync, django.core.management, django.db.models, time\n"
        "start = time.process_time(); import django_jobs\n"
        "print(time.process_time() - start)"
    )
    limit = 0.03 if not sys.dont_write_bytecode else 0.1
    costs = []
    # The first one may compile, and a busy machine makes all dearer: the best counts.
    while not costs or (min(costs) >= limit and len(costs) < 20):
        done = in_new_process(code)
        assert done.returncode == 0, done.stderr
        costs.append(float(done.stdout))
    assert min(costs) < limit, costs


def test_every_public_name_is_there_and_once() -> None:
    names = django_jobs.__all__
    assert len(names) == len(set(names))
    assert all(hasattr(django_jobs, name) for name in names)


TYPED = """
from datetime import timedelta
from typing import Any, assert_type

from django_jobs import RetryPolicy, TaskContext, TaskDefinition, TaskResult, task

@task
def plain(a: int, b: str = "") -> float: ...
@task(priority=5, time_limit=timedelta(seconds=1), backoff=[1, 2], retry_on=OSError)
def with_options(a: int) -> str: ...
@task
async def coroutine(a: int) -> bytes: ...
@task(takes_context=True)
def with_context(context: TaskContext, a: int) -> list[int]: ...
@task(takes_context=True, backoff=RetryPolicy(base=1.0))
async def async_context(context: TaskContext, a: int) -> int: ...

assert_type(plain.enqueue(1, b="x"), TaskResult[float])
assert_type(plain.enqueue(1).return_value, float)
assert_type(plain.call(1), float)
assert_type(with_options.using(priority=1).enqueue(1), TaskResult[str])
assert_type(coroutine.call(1), bytes)
assert_type(coroutine.enqueue(1).get(timeout=1), bytes)
assert_type(with_context.enqueue(1).get(), list[int])
assert_type(async_context.s(1).enqueue(), TaskResult[int])

async def main() -> None:
    assert_type(await plain.aenqueue(1), TaskResult[float])
    assert_type(await coroutine.acall(1), bytes)

plain.enqueue("x")  # E: arg-type
plain.enqueue()  # E: call-arg
plain.enqueue(1, c=2)  # E: call-arg
with_context.enqueue()  # E: call-arg
async_context.s("x")  # E: arg-type
plain.using(run_at=1)  # E: call-arg
task(priorty=5)  # E: call-overload
task(priority="high")  # E: call-overload
"""


def test_type_checkers_see_the_signature_of_the_function(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    source = tmp_path / "snippet.py"
    source.write_text(TYPED)
    config = tmp_path / "mypy.ini"
    config.write_text(
        "[mypy]\nstrict = true\nfollow_imports = silent\n"
        "disable_error_code = empty-body\n"
    )
    command = [sys.executable, "-m", "mypy", "--config-file", str(config)]
    command += [
        "--cache-dir",
        str(tmp_path / "cache"),
        "--no-error-summary",
        str(source),
    ]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    found = [
        (int(line.split(":")[1]), line.rsplit("[", 1)[-1].rstrip("]"))
        for line in done.stdout.splitlines()
        if ": error: " in line and str(source.name) in line
    ]
    expected = [
        (number, line.rsplit("# E: ", 1)[-1])
        for number, line in enumerate(TYPED.splitlines(), 1)
        if "# E: " in line
    ]
    assert found == expected, done.stdout + done.stderr
