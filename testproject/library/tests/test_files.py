"""Which files the demo finds, and how the plain progress line counts."""

import io
import os
import re
import tokenize
from pathlib import Path

import django
import pytest

from library import files, progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    return Terminal()


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


def show(out: io.StringIO) -> list[str]:
    """Return the lines of a bar that goes from 0 to 4,000."""
    with progress.bar(out, total=4000, done=0) as update:
        for now in (0, 1000, 4000):
            update(now)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue())
    return re.split(r"[\r\n]+", text.strip())


@pytest.mark.parametrize("has_rich", [True, False])
def test_on_a_terminal_the_bar_leaves_room_for_what_the_terminal_echoes(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, has_rich: bool
) -> None:
    if not has_rich:
        monkeypatch.setattr(progress, "find_spec", lambda name: None)
    else:
        pytest.importorskip("rich")
    lines = show(terminal)
    assert "\r" in terminal.getvalue() or "\x1b[" in terminal.getvalue()
    assert max(map(len, lines)) + len("^C") < 80
    assert re.search(r"4,?000/4,?000 tasks", lines[-1])


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_where_plain_text_is_asked_for_a_terminal_gets_plain_lines(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    lines = show(terminal)
    assert not re.search(r"[\r\x1b]", terminal.getvalue())
    assert len(lines) == 2
    assert lines[-1].startswith("[" + "#" * 30 + "] 4,000/4,000 tasks, ")


def test_paths_are_shown_from_their_root() -> None:
    folder = files.roots()[0]
    text = f"bad {folder}{os.sep}a{os.sep}b.py, {os.sep}elsewhere"
    assert files.shortened(text) == f"bad a{os.sep}b.py, {os.sep}elsewhere"
