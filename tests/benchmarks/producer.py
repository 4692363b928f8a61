"""A process in the environment of a peer that enqueues and counts when asked."""

from __future__ import annotations

import json
import select
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ANSWER_SECONDS = 300.0


class Producer:
    """Speaks with ``tests.benchmarks.inside``: a JSON line there, a JSON line back."""

    def __init__(
        self, command: Sequence[str], env: dict[str, str], folder: Path, log: Path
    ) -> None:
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                env=env,
                cwd=folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                text=True,
                start_new_session=True,
            )

    def __enter__(self) -> Producer:
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.kill()
        self._process.communicate()

    def call(self, name: str, *args: Any) -> Any:
        """Return the answer; RuntimeError says what went wrong over there."""
        self.ask(name, *args)
        return self.answer()

    def ask(self, name: str, *args: Any) -> None:
        """Ask without waiting: several producers can be at it at the same time."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"call": name, "args": args}) + "\n")
        self._process.stdin.flush()

    def answer(self) -> Any:
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], ANSWER_SECONDS)[0]:
            raise TimeoutError("the producer does not answer")
        line = self._process.stdout.readline()
        if not line:
            raise EOFError("the producer has ended")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["answer"]
