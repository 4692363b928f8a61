"""Servers of our own, that may be stopped, killed and thrown away."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.benchmarks.processes import session_of

UP_SECONDS = 30.0


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


class Server:
    """A process that listens on a port of its own and keeps its data in a folder."""

    user = ""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.folder.mkdir(parents=True)
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        if self.is_another_user:
            shutil.chown(self.folder, self.user)

    @property
    def is_another_user(self) -> bool:
        """Tell whether it must not run as us: root may not run PostgreSQL."""
        return bool(self.user) and os.getuid() == 0

    def command(self) -> list[str]:
        raise NotImplementedError

    def answers(self) -> bool:
        raise NotImplementedError

    def kill_connections(self) -> None:
        raise NotImplementedError

    def settle(self) -> None:
        """Have done at once what it would do in the background after many writes."""
        raise NotImplementedError

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command(),
                cwd=self.folder,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                **self.as_user(),
            )
        self._wait_until(self.answers)

    def stop(self, number: int) -> None:
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(UP_SECONDS)
            self.process = None

    def pids(self) -> list[int]:
        return session_of(self.process.pid) if self.process else []

    def as_user(self) -> dict[str, Any]:
        """Return what lets a command run as the user of the server."""
        if not self.is_another_user:
            return {}
        entry = pwd.getpwnam(self.user)
        return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}

    def _wait_until(self, question: Callable[[], bool]) -> None:
        deadline = time.monotonic() + UP_SECONDS
        while not question():
            if time.monotonic() > deadline:
                raise TimeoutError((self.folder / "log").read_text()[-2000:])
            time.sleep(0.02)


class PostgreSQL(Server):
    """PostgreSQL with its default settings."""

    user = "postgres"
    clean, crash = signal.SIGINT, signal.SIGQUIT  # "fast" and "immediate"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.programs = _postgresql_programs()
        self._run("initdb", "-D", "data", "-U", "postgres", "-A", "trust", "-E", "UTF8")

    def command(self) -> list[str]:
        address = ("-h", "127.0.0.1", "-p", str(self.port), "-k", str(self.folder))
        return [str(self.programs / "postgres"), "-D", "data", *address]

    def answers(self) -> bool:
        return self.ask("SELECT 1") == "1"

    def version(self) -> str:
        return self.ask("SHOW server_version").split()[0]

    def kill_connections(self) -> None:
        self.ask(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )

    def settle(self) -> None:
        names = self.ask("SELECT datname FROM pg_database WHERE datallowconn")
        for name in names.splitlines():
            self.ask("VACUUM ANALYZE", name)
        self.ask("CHECKPOINT")

    def create_database(self, name: str, template: str = "template0") -> dict[str, Any]:
        """Make an empty database, or a copy; return the settings for Django."""
        self.ask(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        self.ask(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": name,
            "USER": "postgres",
            "HOST": "127.0.0.1",
            "PORT": self.port,
        }

    def ask(self, query: str, database: str = "postgres") -> str:
        """Return the answer to a query, empty when there is none."""
        where = ("-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres")
        command = [str(self.programs / "psql"), *where, "-XAtc", query, database]
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()

    def _run(self, program: str, *options: str) -> None:
        command = [str(self.programs / program), *options]
        quiet = {"stdout": subprocess.DEVNULL, "cwd": self.folder}
        subprocess.run(command, check=True, **quiet, **self.as_user())


def _postgresql_programs() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    elsewhere = shutil.which("initdb")
    if not found and elsewhere is None:
        raise FileNotFoundError("PostgreSQL's initdb was not found")
    return found[-1].parent if found else Path(str(elsewhere)).resolve().parent


class Redis(Server):
    """Redis without a configuration file, which is what the packages ship.

    It saves a snapshot when it is stopped, and after an hour, 5 minutes or a minute
    when 1, 100 or 10,000 keys have changed; it keeps no log of what it is told.
    """

    clean, crash = signal.SIGTERM, signal.SIGKILL

    def command(self) -> list[str]:
        return ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1"]

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def answers(self) -> bool:
        return self.ask("PING") == "PONG"

    def version(self) -> str:
        lines = self.ask("INFO", "server").splitlines()
        found = dict(each.split(":", 1) for each in lines if ":" in each)
        return found["redis_version"].strip()

    def kill_connections(self) -> None:
        for kind in ("normal", "pubsub"):
            self.ask("CLIENT", "KILL", "TYPE", kind)

    def settle(self) -> None:
        self.ask("SAVE")

    def empty(self) -> None:
        self.ask("FLUSHALL")

    def ask(self, *words: str) -> str:
        command = ["redis-cli", "-p", str(self.port), *words]
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()
