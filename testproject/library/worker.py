"""A real worker as a process of its own, as a process manager would run it."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from django.core.management.base import CommandError

STOP_TIMEOUT = 60


class Worker:
    def __init__(self, manage: Path, log: Path, options: list[str]) -> None:
        self.log = log
        # Appended to: a demo that goes on keeps what its worker wrote before.
        with log.open("ab") as output:
            # A session of its own: Ctrl-C reaches this program alone, which then
            # stops the worker in an orderly way.
            self.process = subprocess.Popen(
                [sys.executable, str(manage), "jobworker", *options],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def check(self) -> None:
        """Complain when the worker has ended by itself."""
        if (code := self.process.poll()) is not None:
            raise CommandError(f"the worker ended with code {code}\n{self._tail()}")

    def stop(self) -> None:
        """Ask it to finish what it is doing, and wait until it has."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise CommandError(f"the worker did not stop\n{self._tail()}") from None
        if code:
            raise CommandError(f"the worker stopped with code {code}\n{self._tail()}")

    def _tail(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-20:])


@contextmanager
def running(manage: Path, log: Path, options: list[str]) -> Iterator[Worker]:
    """A worker for the length of the block, stopped gracefully at its end."""
    worker = Worker(manage, log, options)
    try:
        yield worker
    finally:
        worker.stop()
