"""The tasks of the demo: they read real files and fail for real reasons."""

import asyncio
import hashlib
import tokenize
from collections import Counter
from pathlib import Path
from typing import Any

from django_jobs import task

from . import files


@task(max_attempts=3, backoff=[0.2, 0.5])
def measure(path: str) -> dict[str, Any]:
    """Read one source file; one that does not tokenize is an error."""
    content = Path(path).read_bytes()
    with tokenize.open(path) as source:  # decoded as the file itself declares
        tokens = sum(1 for _ in tokenize.generate_tokens(source.readline))
    return {
        "path": path,
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "lines": len(content.splitlines()),
        "tokens": tokens,
    }


@task
async def survey(root: str) -> dict[str, int]:
    """How many files of which kind lie under a root, the event loop kept free."""
    paths = await asyncio.to_thread(lambda: list(files.walk(root)))
    return dict(Counter(Path(path).suffix or "without suffix" for path in paths))
