"""Every mistake in the settings that can be seen has a check, an id and a hint."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import django
import pytest
from django.apps import apps
from django.conf import settings
from django.core import checks as django_checks
from django.core.checks import CheckMessage
from django.core.management import call_command
from django.db import OperationalError, connections
from django.test import override_settings

from django_jobs import checks, definitions
from django_jobs.checks import backends, databases, layout, tasks
from django_jobs.conf import conf
from django_jobs.decorators import task
from django_jobs.models import Task

Requires = Callable[..., None]
OURS = "django_jobs.backend.JobsBackend"
ALIASES = ["default", "other"]


def ids(messages: Iterable[CheckMessage]) -> list[str]:
    """Return the numbers of the messages, each of which must help."""
    messages = list(messages)
    assert all(message.hint for message in messages)
    return [str(message.id).removeprefix("django_jobs.") for message in messages]


@contextmanager
def jobs(**given: Any) -> Iterator[None]:
    with override_settings(DJANGO_JOBS=given):
        yield


def test_the_settings_of_the_tests_are_right() -> None:
    assert checks.check_settings() == []
    assert checks.check_layout() == []
    assert checks.check_tasks() == []


@pytest.mark.django_db(databases=ALIASES)
def test_the_databases_of_the_tests_are_right() -> None:
    assert checks.check_databases(databases=ALIASES) == []


@pytest.mark.django_db(databases=ALIASES)
def test_manage_py_check_runs_them_all(monkeypatch: Any) -> None:
    registered = django_checks.registry.registry.get_checks(True)
    for check in (
        checks.check_settings,
        checks.check_layout,
        checks.check_tasks,
        checks.check_databases,
    ):
        assert check in registered
    with jobs(QUEUE=["mail"]):
        assert "django_jobs.E001" in [
            each.id for each in django_checks.run_checks(databases=ALIASES)
        ]


@pytest.mark.skipif(django.VERSION < (6, 0), reason="Django has no tasks")
def test_djangos_own_check_of_tasks_is_registered() -> None:
    names = [check.__module__ for check in django_checks.registry.registry.get_checks()]
    assert "django.tasks.checks" in names


@pytest.mark.django_db(databases=ALIASES)
def test_the_models_need_no_further_migration() -> None:
    call_command("makemigrations", "django_jobs", check=True, dry_run=True, verbosity=0)


# -- DJANGO_JOBS -------------------------------------------------------------------


def test_an_unknown_key_or_a_wrong_type_is_an_error_that_helps() -> None:
    with jobs(QUEUE=["mail"], LEASE="long"):
        first, second = checks.check_settings()
        assert ids([first, second]) == ["E001", "E001"]
        assert "Did you mean 'QUEUES'?" in first.msg
        assert "must be a number of seconds" in second.msg
    with override_settings(DJANGO_JOBS=["QUEUES"]):
        assert ids(checks.check_settings()) == ["E001"]
        assert checks.check_layout() == checks.check_tasks() == []


@pytest.mark.parametrize("value", [10**10, 10_000 * 86_400, math.inf, math.nan, -0.1])
@pytest.mark.parametrize("key", ["BACKOFF_CAP", "RESULT_RETENTION", "TIME_LIMIT"])
def test_a_time_without_end_is_an_error(key: str, value: float) -> None:
    with jobs(**{key: value}):
        [message] = checks.check_settings()
        assert ids([message]) == ["E001"]
        assert f"[{key!r}] must be a number of seconds from 0 to under" in message.msg
    with jobs(**{key: 9_999 * 86_400}):
        assert checks.check_settings() == []


@pytest.mark.django_db(databases=ALIASES)
def test_a_wrong_key_hides_no_other_mistake(found: Found) -> None:
    with jobs(QUEUE=["mail"], MAX_ATTEMPTS=0, POLL_FASTEST=3, QUEUES=["default"]):
        assert ids(checks.check_settings()) == ["E001", "E008", "E009"]
        assert ids(checks.check_tasks())[0] == "E020"
        assert found(Fake("oracle")) == ["E011"]
        old = asked("postgresql", [1], pg_version=130011)
        assert found(old) == ["E015"]


def test_which_database_was_meant_is_not_guessed(found: Found) -> None:
    with jobs(DATABASE=5):
        assert ids(checks.check_settings()) == ["E001"]
        assert found(Fake("oracle")) == []


def test_a_default_queue_that_is_not_declared_is_one_error() -> None:
    with jobs(QUEUES=["mail", "other"]):
        assert ids(checks.check_settings()) == ["E007"]
        assert "E020" not in ids(checks.check_tasks())


@pytest.mark.parametrize(
    ("given", "number"),
    [
        ({"DATABASE": "nowhere"}, "E002"),
        ({"LISTEN_DATABASE": "nowhere"}, "E003"),
        ({"MIDDLEWARE": ["django_jobs.middleware.nothing"]}, "E004"),
        ({"MIDDLEWARE": ["no.such.module"]}, "E004"),
        ({"ENQUEUE_MIDDLEWARE": ["django_jobs.middleware.__name__"]}, "E004"),
        ({"HEARTBEAT": 16, "LEASE": 30}, "E005"),
        ({"SOFT_TIME_LIMIT": 9, "TIME_LIMIT": 8}, "E006"),
        ({"QUEUES": ["mail"]}, "E007"),
        ({"MAX_ATTEMPTS": 0}, "E008"),
        ({"TIME_LIMIT": 0}, "E008"),
        ({"BACKOFF_BASE": 10, "BACKOFF_CAP": 5}, "E009"),
        ({"POLL_FASTEST": 3}, "E009"),
    ],
)
def test_settings_that_contradict_are_errors(
    given: dict[str, Any], number: str
) -> None:
    with jobs(**given):
        assert ids(checks.check_settings()) == [number]


def test_the_names_of_a_middleware_that_works_are_no_mistake() -> None:
    with jobs(MIDDLEWARE=["django_jobs.middleware.locale"], HEARTBEAT=15, LEASE=30):
        assert checks.check_settings() == []


def test_listening_goes_to_a_postgresql(requires: Requires) -> None:
    with jobs(LISTEN_DATABASE="other"):
        is_postgresql = connections["other"].vendor == "postgresql"
        assert ids(checks.check_settings()) == ([] if is_postgresql else ["E003"])


def test_a_lock_that_nobody_holds_is_a_warning() -> None:
    with jobs(FAST_RESCUE=True, NOTIFY=False):
        assert ids(checks.check_settings()) == ["W009"]
    with jobs(FAST_RESCUE=True):
        assert checks.check_settings() == []


@override_settings(USE_TZ=False)
def test_times_without_zones_are_a_warning() -> None:
    assert ids(checks.check_settings()) == ["W001"]


@pytest.mark.skipif(django.VERSION >= (6, 0), reason="Django has tasks itself")
def test_tasks_without_their_framework_are_noticed(monkeypatch: Any) -> None:
    with override_settings(TASKS={"default": {"BACKEND": OURS}}):
        monkeypatch.setattr(backends, "find_spec", lambda name: None)
        [message] = checks.check_settings()
        assert ids([message]) == ["E010"]
        assert "django-jobworker[backport]" in str(message.hint)
        monkeypatch.setattr(backends, "find_spec", lambda name: name)
        without_backport(monkeypatch)
        assert ids(checks.check_settings()) == ["W002"]
    with override_settings(TASKS={"default": {"BACKEND": "another.Backend"}}):
        assert checks.check_settings() == []


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([], "TASKS must be a dict, not list."),
        (None, "TASKS must be a dict, not NoneType."),
        ({"default": None}, "TASKS['default'] must be a dict, not NoneType."),
        ({"default": OURS}, "TASKS['default'] must be a dict, not str."),
        ({"default": {}}, "TASKS['default'] has no 'BACKEND' that is a dotted path."),
        (
            {"default": {"BACKEND": OURS, "OPTIONS": None}},
            "TASKS['default']['OPTIONS'] must be a dict, not NoneType.",
        ),
    ],
)
def test_a_malformed_setting_of_backends_is_an_error(given: Any, words: str) -> None:
    with override_settings(TASKS=given):
        [message] = checks.check_settings()
        assert (ids([message]), message.msg) == (["E017"], words)
        assert layout.queue_aliases() == ["default"]
        # Nothing is loaded by them, so that the checks have their turn.
        apps.get_app_config("django_jobs").ready()


def test_options_of_other_backends_are_not_ours_to_judge() -> None:
    with override_settings(TASKS={"x": {"BACKEND": "another.Backend", "OPTIONS": 1}}):
        assert checks.check_settings() == []
        assert layout.queue_aliases() == ["default"]


@pytest.mark.parametrize("given", ["[]", "{'default': None}", f"{{'x': '{OURS}'}}"])
def test_a_malformed_setting_of_backends_ends_no_command_with_a_traceback(
    given: str,
) -> None:
    script = f"""
import django
from django.conf import settings
from django.core.management import execute_from_command_line
sqlite = {{"ENGINE": "django.db.backends.sqlite3", "NAME": "never-made"}}
settings.configure(
    DATABASES={{"default": sqlite}}, INSTALLED_APPS=["django_jobs"], TASKS={given}
)
execute_from_command_line(["manage.py", "check"])
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60
    )
    assert "Traceback" not in done.stderr
    assert "django_jobs.E017" in done.stderr
    assert done.returncode == 1


def without_backport(monkeypatch: Any) -> None:
    """Take the app of the backport for not installed."""
    is_installed = backends.apps.is_installed
    monkeypatch.setattr(
        backends.apps,
        "is_installed",
        lambda name: name != "django_tasks" and is_installed(name),
    )


@pytest.mark.parametrize(
    "path",
    [
        "django_jobs.JobsBackend",
        "django_jobs.backends.JobsBackend",
        "django_job.backend.JobsBackend",
        "django_jobs.backend.JobBackend",
        "jobs.JobsBackend",
    ],
)
def test_a_wrong_path_of_the_backend_is_an_error_that_names_the_right_one(
    path: str, monkeypatch: Any
) -> None:
    without_backport(monkeypatch)
    params = {"BACKEND": path, "OPTIONS": {"MAX_ATEMPTS": 3}}
    with override_settings(TASKS={"default": params}):
        wrong, option = [
            each
            for each in checks.check_settings()
            if each.id not in ("django_jobs.E010", "django_jobs.W002")
        ]
    assert ids([wrong, option]) == ["E034", "E032"]
    assert (wrong.hint, option.hint) == (
        f"Did you mean {OURS!r}?",
        "Did you mean 'MAX_ATTEMPTS'?",
    )


def test_a_backend_of_others_and_a_subclass_are_no_mistake() -> None:
    for path in ("tests.test_checks.JobsBackend", "shop.backend.Backend", "a"):
        with override_settings(TASKS={"default": {"BACKEND": path}}):
            assert set(ids(checks.check_settings())) <= {"E010", "W002"}
    wrong = {"BACKEND": "jobs.JobsBackend", "OPTIONS": 3}
    with override_settings(TASKS={"default": wrong}):
        assert "E034" in ids(checks.check_settings())


class JobsBackend:
    """Stands for a subclass in a project."""


@pytest.mark.skipif(django.VERSION >= (6, 0), reason="Django checks them itself")
@pytest.mark.parametrize("has_module", [True, False])
def test_parameters_are_checked_without_the_app_of_the_backport(
    has_module: bool, monkeypatch: Any
) -> None:
    without_backport(monkeypatch)
    monkeypatch.setattr(backends, "find_spec", lambda name: has_module or None)
    options = {"MAX_ATEMPTS": 3, "DATABASE": "nowhere"}
    params = {"BACKEND": OURS, "QUEUES": "mail", "OPTIONS": options}
    with override_settings(TASKS={"default": params}):
        first, *others = ids(checks.check_settings())
    assert first == ("W002" if has_module else "E010")
    assert others == ["E031", "E032", "E033"]


@pytest.mark.parametrize(
    ("name", "value", "hint"),
    [
        ("DJANGO_JOB", {}, "Did you mean DJANGO_JOBS?"),
        ("DJANGOJOBS", {}, "Did you mean DJANGO_JOBS?"),
        ("DJANGO_JOBS_CONFIG", {}, "Did you mean DJANGO_JOBS?"),
        (
            "DJANGO_JOBS_MAX_ATEMPTS",
            3,
            "Did you mean DJANGO_JOBS = {'MAX_ATTEMPTS': ...}?",
        ),
        ("DJANGO_JOBS_DASHBOARD_TITLE", "Jobs", None),
        ("DJANGO_TASKS", {}, None),
        ("JOBS", {}, None),
    ],
)
def test_a_setting_that_was_meant_for_us_is_a_warning(
    name: str, value: Any, hint: str | None
) -> None:
    with override_settings(**{name: value}):
        messages = checks.check_settings()
    assert ids(messages) == ([] if hint is None else ["W008"])
    assert [each.hint for each in messages] == ([] if hint is None else [hint])


def test_a_length_of_time_may_be_a_timedelta() -> None:
    with jobs(RESULT_RETENTION=timedelta(days=1), LEASE=timedelta(minutes=1)):
        assert checks.check_settings() == []
        assert (conf().RESULT_RETENTION, conf().LEASE) == (86_400.0, 60.0)
    with jobs(TIME_LIMIT=timedelta(-1), LEASE=None, MAX_ATTEMPTS=timedelta(1)):
        first, second, third = [each.msg for each in checks.check_settings()]
    seconds = "must be a number of seconds from 0 to under 10,000 days, or a timedelta"
    assert f"'TIME_LIMIT'] {seconds}, or None, not datetime.timedelta(" in first
    assert f"'LEASE'] {seconds}, not None." in second
    assert "'MAX_ATTEMPTS'] must be a whole number from 0 on, not " in third


# -- DATABASES and routers ---------------------------------------------------------


def columns_of(model: Any) -> list[SimpleNamespace]:
    """Return the columns of a model as a database describes them."""
    fields = model._meta.local_concrete_fields
    return [SimpleNamespace(name=field.column) for field in fields]


class Fake:
    """A database that needs not be there."""

    def __init__(self, vendor: str, **given: Any) -> None:
        self.alias = "default"
        self.vendor = self.display_name = vendor
        self.settings_dict = {
            "AUTOCOMMIT": True,
            "CONN_MAX_AGE": 0,
            "HOST": "",
            "NAME": "site",
            "PORT": "",
            "OPTIONS": {},
            **given,
        }
        self.answer: Any = ()
        self.mysql_is_mariadb = False
        ours = apps.get_app_config("django_jobs").get_models()
        self.tables = {each._meta.db_table: columns_of(each) for each in ours}
        self.introspection = SimpleNamespace(
            table_names=lambda cursor: list(self.tables),
            get_table_description=lambda cursor, table: self.tables[table],
        )

    def ensure_connection(self) -> None: ...

    def is_in_memory_db(self) -> bool:
        return False

    @contextmanager
    def cursor(self) -> Iterator[Any]:
        if isinstance(self.answer, Exception):
            raise self.answer
        yield SimpleNamespace(execute=lambda sql: None, fetchone=lambda: self.answer)


@pytest.fixture
def found(monkeypatch: Any) -> Callable[[Fake], list[str]]:
    """Check a fake as the queue's database, by settings and by asking it."""

    def check(fake: Fake) -> list[str]:
        for module in (layout, databases):
            monkeypatch.setattr(module, "connections", {"default": fake})
        with override_settings(TASKS={}):
            asked = [] if fake.answer == () else checks.check_databases(["default"])
            return ids([*checks.check_layout(), *asked])

    return check


Found = Callable[[Fake], list[str]]
GOOD_SQLITE = {"transaction_mode": "IMMEDIATE", "timeout": 20}


def test_a_database_on_which_the_queue_cannot_work_is_an_error(found: Found) -> None:
    assert found(Fake("oracle")) == ["E011"]
    assert found(Fake("mysql", AUTOCOMMIT=False)) == ["E012"]


def test_the_ways_of_sqlite_are_checked(found: Found) -> None:
    assert found(Fake("sqlite", OPTIONS=GOOD_SQLITE)) == []
    assert found(Fake("sqlite")) == ["W005", "W006"]
    assert found(Fake("sqlite", NAME=":memory:", OPTIONS=GOOD_SQLITE)) == ["W004"]
    for mode in ("immediate", "Exclusive"):
        assert (
            found(Fake("sqlite", OPTIONS=GOOD_SQLITE | {"transaction_mode": mode}))
            == []
        )
    deferred = GOOD_SQLITE | {"transaction_mode": "DEFERRED"}
    assert found(Fake("sqlite", OPTIONS=deferred)) == ["W005"]
    hasty = GOOD_SQLITE | {"timeout": 1}
    assert found(Fake("sqlite", OPTIONS=hasty)) == ["W006"]


def test_a_pool_with_lasting_connections_is_an_error(found: Found) -> None:
    pooled = {"OPTIONS": {"pool": True}}
    assert found(Fake("postgresql", **pooled)) == []
    assert found(Fake("postgresql", **pooled, CONN_MAX_AGE=60)) == ["E014"]


def test_what_looks_like_a_pooler_needs_a_direct_way_to_listen(found: Found) -> None:
    for given in ({"PORT": 6432}, {"HOST": "pgbouncer.internal"}):
        assert found(Fake("postgresql", **given)) == ["W007"]
        with jobs(NOTIFY=False):
            assert found(Fake("postgresql", **given)) == []
        with jobs(LISTEN_DATABASE="other"):
            assert found(Fake("postgresql", **given)) == []
    assert found(Fake("postgresql", HOST="db", PORT=5432)) == []


class ReadsElsewhere:
    def db_for_read(self, model: Any, **hints: Any) -> str | None:
        return "other" if model._meta.app_label == "django_jobs" else None


class NoTables:
    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool | None:
        return False if app_label == "django_jobs" else None


def test_a_router_that_parts_the_queue_is_noticed() -> None:
    with override_settings(DATABASE_ROUTERS=[f"{__name__}.ReadsElsewhere"]):
        assert ids(checks.check_layout()) == ["W003"]
    with override_settings(DATABASE_ROUTERS=[f"{__name__}.NoTables"]):
        assert ids(checks.check_layout()) == ["E013"]
    with jobs(DATABASE="other"):
        assert ids(checks.check_layout()) == ["W003"]


# -- what the databases say --------------------------------------------------------


def asked(vendor: str, answer: Any, **attributes: Any) -> Fake:
    fake = Fake(vendor, OPTIONS=GOOD_SQLITE if vendor == "sqlite" else {})
    fake.answer = answer
    fake.__dict__.update(attributes)
    return fake


def test_a_database_that_is_too_old_is_an_error(found: Found) -> None:
    library = SimpleNamespace(sqlite_version_info=(3, 36, 0))
    assert found(asked("sqlite", ["wal"], Database=library)) == ["E015"]
    library.sqlite_version_info = (3, 37, 0)
    assert found(asked("sqlite", ["wal"], Database=library)) == []
    assert found(asked("postgresql", [1], pg_version=130011)) == ["E015"]
    assert found(asked("postgresql", [1], pg_version=140000)) == []
    level = ["isolation", "READ-COMMITTED"]
    for version, is_mariadb in (((10, 5, 9), True), ((5, 7, 40), False)):
        fake = asked("mysql", level, mysql_version=version, mysql_is_mariadb=is_mariadb)
        assert found(fake) == ["E015"]
    assert found(asked("mysql", level, mysql_version=(8, 0, 11))) == []


def test_another_isolation_of_mysql_is_a_warning(found: Found) -> None:
    level = ["isolation", "REPEATABLE-READ"]
    assert found(asked("mysql", level, mysql_version=(8, 4, 0))) == ["W012"]


def test_a_database_without_the_tables_is_a_warning(
    found: Found, monkeypatch: Any
) -> None:
    fake = asked("postgresql", [1], pg_version=140000)
    fake.tables = {"auth_user": []}
    assert found(fake) == ["W013"]
    monkeypatch.setattr(sys, "argv", ["manage.py", "migrate"])
    assert found(fake) == []


def test_tables_of_an_earlier_release_are_a_warning_that_names_the_columns(
    found: Found,
) -> None:
    fake = asked("postgresql", [1], pg_version=140000)
    fake.tables[Task._meta.db_table].pop()
    del fake.tables["django_jobs_operation"]
    assert found(fake) == ["W013"]
    [message] = checks.check_databases(["default"])
    older = "the tables of django_jobs are older than this code"
    missing = "(no django_jobs_task.progress, django_jobs_operation)"
    assert f"{older} {missing}" in message.msg


@pytest.mark.parametrize("words", ["check --database default", "check", "migrate"])
def test_tables_that_are_missing_are_told_before_migrate(
    words: str, worker_env: dict[str, str], tmp_path: Path, requires: Requires
) -> None:
    requires("sqlite")
    empty = {**worker_env, "DJANGO_JOBS_TEST_NAME_DEFAULT": str(tmp_path / "new")}
    done = subprocess.run(
        [sys.executable, "-m", "django", *words.split()],
        env=empty,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0
    assert ("django_jobs.W013" in done.stderr) is (words == "check --database default")


def test_a_database_that_does_not_answer_is_a_warning(found: Found) -> None:
    fake = asked("postgresql", OperationalError("connection refused\nhint"))

    def refuse() -> None:
        raise OperationalError("connection refused\nIs the server running?")

    fake.ensure_connection = refuse  # type: ignore[method-assign]
    assert found(fake) == ["W010"]


@pytest.mark.django_db(transaction=True, databases=ALIASES)
def test_a_real_sqlite_without_wal_is_a_warning(requires: Requires) -> None:
    requires("sqlite")
    with connections["default"].cursor() as cursor:
        cursor.execute("PRAGMA journal_mode=DELETE")
    try:
        assert ids(checks.check_databases(["default", "other"])) == ["W011"]
        assert checks.check_databases(["other"]) == []
        assert checks.check_databases() == []
    finally:
        with connections["default"].cursor() as cursor:
            cursor.execute("PRAGMA journal_mode=WAL")


@pytest.mark.django_db(transaction=True, databases=ALIASES)
def test_a_real_mariadb_that_locks_gaps_is_a_warning(requires: Requires) -> None:
    requires("mysql")
    connection = connections["default"]
    with connection.cursor() as cursor:
        cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    try:
        assert ids(checks.check_databases(ALIASES)) == ["W012"]
    finally:
        connection.close()


@pytest.mark.skipif(not hasattr(settings, "TASKS"), reason="Django has no tasks")
@pytest.mark.django_db(transaction=True, databases=ALIASES)
def test_queues_of_the_backends_are_checked_too(requires: Requires) -> None:
    assert layout.queue_aliases() == ["default", "other"]
    with override_settings(TASKS={}):
        assert layout.queue_aliases() == ["default"]


# -- tasks -------------------------------------------------------------------------


def checked_task() -> None: ...


@pytest.fixture
def declare(monkeypatch: Any) -> Callable[..., None]:
    monkeypatch.setattr(definitions, "_definitions", {})
    return lambda **options: void(task(**options)(checked_task))


def void(definition: object) -> None:
    """Forget the definition; the registry has it."""


def test_a_task_of_a_queue_that_is_not_declared_is_an_error(
    declare: Callable[..., None],
) -> None:
    declare(queue_name="mails")
    assert checks.check_tasks() == []
    with jobs(QUEUES=["default", "mail"]):
        [message] = checks.check_tasks()
        assert ids([message]) == ["E020"]
        assert "Did you mean 'mail'?" in message.msg


def test_a_soft_limit_beyond_the_hard_one_of_the_settings_is_an_error(
    declare: Callable[..., None],
) -> None:
    declare(soft_time_limit=60)
    assert checks.check_tasks() == []
    with jobs(TIME_LIMIT=30):
        assert ids(checks.check_tasks()) == ["E021"]
    with jobs(TIME_LIMIT=90):
        assert tasks.check_tasks() == []


# -- an alias of TASKS -------------------------------------------------------------


@pytest.fixture
def backend() -> Callable[..., Any]:
    if django.VERSION < (6, 0):
        pytest.importorskip("django_tasks", reason="the backport is not installed")
    from django_jobs.backend import JobsBackend

    return lambda **params: JobsBackend("default", params)


def test_a_backend_with_right_options_has_no_problems(
    backend: Callable[..., Any],
) -> None:
    options = {
        "DATABASE": "other",
        "MAX_ATTEMPTS": 3,
        "ENQUEUE_ON_COMMIT": True,
        "MODULES": ["tests.thirdparty.elsewhere"],
    }
    assert backend().check() == []
    assert backend(QUEUES=["mail"], OPTIONS=options).check() == []


@override_settings(INSTALLED_APPS=[])
def test_a_backend_without_its_app_is_an_error(backend: Callable[..., Any]) -> None:
    [message] = backend().check()
    assert ids([message]) == ["E030"]
    assert "django_jobs" in message.hint


@pytest.mark.parametrize(
    ("params", "number"),
    [
        ({"QUEUES": "default"}, "E031"),
        ({"OPTIONS": {"DATABSE": "other"}}, "E032"),
        ({"OPTIONS": {"DATABASE": "nowhere"}}, "E033"),
        ({"OPTIONS": {"MAX_ATTEMPTS": 0}}, "E033"),
        ({"OPTIONS": {"ENQUEUE_ON_COMMIT": "yes"}}, "E033"),
        ({"OPTIONS": {"MODULES": ["no.such.module"]}}, "E033"),
    ],
)
def test_wrong_parameters_of_a_backend_are_errors(
    backend: Callable[..., Any], params: dict[str, Any], number: str
) -> None:
    [message] = backend(**params).check()
    assert ids([message]) == [number]
    if number == "E032":
        assert message.hint == "Did you mean 'DATABASE'?"
