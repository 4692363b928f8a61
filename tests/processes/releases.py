"""Several releases of the package beside each other, each in a folder of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
#: The app that every release runs with.
FLEET = ROOT / "tests" / "deploys"
MIGRATIONS = "django_jobs/migrations"


class NoHistory(Exception):
    """There is no earlier release to be had here; the message says why."""


@dataclass(frozen=True)
class Release:
    """A tree with the package, and how processes use it."""

    name: str
    #: Where ``django_jobs`` comes from.
    tree: Path
    #: The environment of a process on the database of the test.
    base: dict[str, str]
    features: tuple[str, ...] = ()
    more: dict[str, str] = field(default_factory=dict)

    @property
    def env(self) -> dict[str, str]:
        # The package first: this checkout, where the settings are, has one too.
        paths = [self.tree, FLEET, ROOT]
        return {
            **self.base,
            "PYTHONPATH": os.pathsep.join(map(str, paths)),
            "PYTHONSAFEPATH": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "DJANGO_SETTINGS_MODULE": "fleet.settings",
            "FLEET_RELEASE": self.name,
            "FLEET_TREE": str(self.tree),
            "FLEET_FEATURES": " ".join(self.features),
            **self.more,
        }

    def manage(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command of Django's to its end."""
        return subprocess.run(
            [sys.executable, "-m", "django", *words],
            env=self.env,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def python(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a module, which must succeed."""
        command = [sys.executable, "-m", *words]
        done = subprocess.run(
            command, env=self.env, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        return done

    def migrate(self, *words: str) -> None:
        done = self.manage("migrate", "django_jobs", "--verbosity", "0", *words)
        assert done.returncode == 0, done.stderr


def present(
    base: dict[str, str], *features: str, name: str = "present", **more: str
) -> Release:
    """Return the release that is being tested, of a project with such features."""
    return Release(name, ROOT, base, features, more)


def parent_of_the_last_commit() -> str:
    return _git("rev-parse", "--verify", "HEAD~1")


def before_the_newest_migration() -> str:
    """Return the last commit that had one migration less."""
    newest = max(path.name for path in (ROOT / MIGRATIONS).glob("[0-9]*.py"))
    words = ("log", "-1", "--diff-filter=A", "--format=%H", "--")
    commit = _git(*words, f"{MIGRATIONS}/{newest}")
    if not commit:
        raise NoHistory(f"no commit is known that added {newest}")
    return _git("rev-parse", "--verify", f"{commit}~1")


def archived(commit: str, folder: Path, base: dict[str, str], name: str) -> Release:
    """Unpack the package of a commit."""
    with tarfile.open(
        fileobj=BytesIO(_output("archive", commit, "django_jobs"))
    ) as tar:
        tar.extractall(folder, filter="data")
    return Release(name, folder, base)


def _git(*words: str) -> str:
    return _output(*words).decode().strip()


def _output(*words: str) -> bytes:
    if not (ROOT / ".git").exists():
        raise NoHistory("this is no git checkout")
    # Whoever owns the checkout: nothing of it is run by git.
    command = ["git", "-c", f"safe.directory={ROOT}", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True)
    if done.returncode != 0:
        # In a clone that is shallow the oldest commit has no parent, and adds all.
        said = done.stderr.decode().strip()
        raise NoHistory(f"the history ends before it (git {words[0]}: {said})")
    return done.stdout


# -- the next release ----------------------------------------------------------------

#: What the next release adds to the models.
MODELS = """

class Novelty(models.Model):
    name = models.CharField(max_length=50, primary_key=True)

    class Meta:
        verbose_name = "novelty"


for _model in (Task, Result, DeadLetter, Worker):
    models.TextField(null=True).contribute_to_class(_model, "note")
    models.IntegerField(db_default=7).contribute_to_class(_model, "weight")
Task._meta.indexes.append(
    models.Index(fields=["weight"], name="django_jobs_task_weight")
)
"""
#: One migration for each table, so that none holds the lock of one while it waits for
#: that of another.
MIGRATION = """
from django.db import migrations, models

from django_jobs.migrations._beside_workers import BesideWorkers


class Migration(migrations.Migration):
    dependencies = [("django_jobs", {before!r})]
    operations = [
        BesideWorkers(),
        {operations}
        BesideWorkers(),
    ]
"""
ADD_COLUMNS = """\
migrations.AddField({model!r}, "note", models.TextField(null=True)),
        migrations.AddField({model!r}, "weight", models.IntegerField(db_default=7)),
"""
ADD_INDEX = """\
migrations.AddIndex(
            "task", models.Index(fields=["weight"], name="django_jobs_task_weight")
        ),
"""
ADD_TABLE = """\
migrations.CreateModel(
            "Novelty",
            [("name", models.CharField(max_length=50, primary_key=True))],
            options={"verbose_name": "novelty"},
        ),
"""


def next_release(folder: Path, base: dict[str, str]) -> Release:
    """Make what the next release may be like: more columns, a table and an index."""
    package = folder / "django_jobs"
    left_out = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "django_jobs", package, ignore=left_out)
    with (package / "models.py").open("a") as models:
        models.write(MODELS)
    migrations = package / "migrations"
    before = max(path.stem for path in migrations.glob("[0-9]*.py"))
    for name, operations in _changes().items():
        number = int(before[:4]) + 1
        text = MIGRATION.format(before=before, operations=operations.strip())
        before = f"{number:04}_{name}"
        (migrations / f"{before}.py").write_text(text)
    return Release("next", folder, base)


def _changes() -> dict[str, str]:
    models = ("task", "result", "deadletter", "worker")
    columns = {model: ADD_COLUMNS.format(model=model) for model in models}
    return {**columns, "index": ADD_INDEX, "novelty": ADD_TABLE}
