"""Measure every Python source file of this interpreter in the background."""

import os
import shutil
import signal
import sys
import time
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand
from django.urls import reverse

from library import catalogue, files, progress, report, worker

POLL = 0.2


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


class Command(BaseCommand):
    help = (
        "Enqueues a task for every Python source file of the standard library and of "
        "site-packages, runs a worker until all are done, and reports. Interrupted "
        "and started again, it goes on where it was."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--processes", type=int, metavar="N", help="of the worker")
        parser.add_argument(
            "--limit", type=int, metavar="N", help="only the first N files"
        )
        parser.add_argument(
            "--restart", action="store_true", help="forget what earlier runs did"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        signal.signal(signal.SIGTERM, interrupt)
        call_command("migrate", verbosity=0)
        try:
            if options["restart"]:
                catalogue.clear()
            self.enqueue(options["limit"])
            done, seconds = self.work(options["processes"])
        except KeyboardInterrupt:
            self.stdout.write(
                f"Interrupted with {catalogue.to_do():,} tasks to do.\n"
                "The same command goes on from here."
            )
            raise SystemExit(130) from None
        self.report(done, seconds)
        self.explain_admin()

    def enqueue(self, limit: int | None) -> None:
        paths = files.find()[:limit]
        started = time.monotonic()
        roots = files.roots()
        new = catalogue.add(paths, roots)
        seconds = time.monotonic() - started
        found = f"{len(paths):,} files found"
        if not new:
            self.stdout.write(f"{found}, all of them enqueued before.")
            return
        self.stdout.write(
            f"{found}, {new:,} of them new.\n"
            f"Enqueued in one transaction, {seconds:.1f} s: {new:,} tasks to measure "
            f"a file,\n{len(roots)} to survey a folder, {new + len(roots):,} in all."
        )

    def work(self, processes: int | None) -> tuple[int, float]:
        """Run a worker until nothing is left to do: how many tasks, and how long."""
        to_do, done = catalogue.to_do(), catalogue.finished()
        if not to_do:
            self.stdout.write("Nothing left to do (--restart begins anew).")
            return 0, 0.0
        log = Path(settings.BASE_DIR) / "worker.log"
        manage = Path(settings.BASE_DIR) / "manage.py"
        options = ["--processes", str(processes)] if processes else []
        self.stdout.write(f"Starting a worker, which writes to {os.path.relpath(log)}")
        total = done + to_do
        started = time.monotonic()
        with (
            worker.running(manage, log, options) as process,
            progress.bar(sys.stdout, total, done) as update,
        ):
            while left := catalogue.to_do():
                update(total - left)
                process.check()
                time.sleep(POLL)
            update(total)
            seconds = time.monotonic() - started
        return to_do, seconds

    def report(self, done: int, seconds: float) -> None:
        # In a file, lines are as long as they are: for grep and the like.
        width = shutil.get_terminal_size().columns if self.stdout.isatty() else None
        for line in report.lines(done, seconds, width):
            self.stdout.write(line)

    def explain_admin(self) -> None:
        manage = os.path.relpath(Path(settings.BASE_DIR) / "manage.py")
        python = os.path.relpath(sys.executable)
        if python.startswith(".."):
            python = sys.executable
        site = "http://127.0.0.1:8000"
        self.stdout.write(
            "\nLook at every task in the admin:\n"
            f"  {python} {manage} createsuperuser\n"
            f"  {python} {manage} runserver\n"
            f"  {site}{reverse('admin:django_jobs_result_changelist')}\n"
            f"  {site}{reverse('admin:django_jobs_deadletter_changelist')}"
        )
