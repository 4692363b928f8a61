"""Which files the demo finds, and how the plain progress line counts."""

import io
import tokenize
from pathlib import Path

import django

from library import files, progress


def test_finds_the_standard_library_and_the_packages() -> None:
    found = set(files.find())
    assert tokenize.__file__ in found
    assert django.__file__ in found
    assert len(found) > 1000


def test_leaves_out_caches_and_foreign_packages(
    tmp_path: Path,
) -> None:
    for name in ("a.py", "b.txt", "__pycache__/c.py", "site-packages/d.py"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    assert {Path(path).name for path in files.walk(str(tmp_path))} == {"a.py", "b.txt"}


def test_without_a_terminal_progress_is_a_line_now_and_then() -> None:
    out = io.StringIO()
    with progress.bar(out, total=4, done=1) as update:
        for now in (1, 2, 3, 4):
            update(now)
    first, last = out.getvalue().splitlines()
    assert " 1/4 " in first
    assert " 4/4 " in last
    assert last.startswith("[" + "#" * 30 + "]")
