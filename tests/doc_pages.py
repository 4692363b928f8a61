"""The pages of the documentation, and what stands on them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))

#: A fenced block: what stands in the line before it, its language, its text.
_BLOCK = re.compile(
    r"^(?:% (?P<note>[^\n]*)\n\n?)?```(?P<language>\w+)\n(?P<text>.*?)^```$",
    re.M | re.S,
)


def read(name: str) -> str:
    return (DOCS / name).read_text()


def blocks(page: str, language: str) -> Iterator[tuple[str, str]]:
    """Yield the note before and the text of each block of a language."""
    for match in _BLOCK.finditer(page):
        if match["language"] == language:
            yield match["note"] or "", match["text"]


def tables(page: str) -> Iterator[list[str]]:
    """Yield the cells of each row of the tables, headings left out."""
    for table in re.findall(r"(?:^\|.*\n)+", page, re.M):
        for line in table.splitlines()[2:]:
            yield [cell.strip() for cell in line.strip("|").split(" | ")]


def first_words(page: str) -> list[str]:
    """Return the words in code of the first cells of the tables."""
    return [word for row in tables(page) for word in re.findall(r"`([^`]+)`", row[0])]


def section(page: str, heading: str) -> str:
    """Return what stands under a heading."""
    _, _, rest = page.partition(f"\n## {heading}\n")
    assert rest, heading
    return rest.partition("\n## ")[0]
