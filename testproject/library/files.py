"""Where the Python source files of the running interpreter are."""

import os
import sysconfig
from collections.abc import Iterator

MAX_PATH = 500
# Inside the standard library's folder lie the packages of the interpreter that a
# virtual environment was made from; the environment itself does not import them.
SKIPPED = {"__pycache__", "dist-packages", "site-packages"}


def roots() -> list[str]:
    """The folders of the standard library and of site-packages."""
    paths = sysconfig.get_paths()
    keys = ("stdlib", "purelib", "platlib")
    return sorted({os.path.realpath(paths[key]) for key in keys})


def shortened(text: str) -> str:
    """Return a text with the paths in it relative to their roots."""
    for root in sorted(roots(), key=len, reverse=True):
        text = text.replace(root + os.sep, "")
    return text


def find() -> list[str]:
    """Every .py file under the roots, sorted."""
    found = {path for root in roots() for path in walk(root) if path.endswith(".py")}
    return sorted(path for path in found if _is_usable(path))


def walk(root: str) -> Iterator[str]:
    """Every file under a root that belongs to it."""
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in SKIPPED]
        yield from (os.path.join(folder, name) for name in names)


def _is_usable(path: str) -> bool:
    """A file (no broken link) with a name that is Unicode and fits the catalogue."""
    return len(path) <= MAX_PATH and path.isprintable() and os.path.isfile(path)
