"""Text that every database takes, not longer than allowed."""

from __future__ import annotations

import pytest

from django_jobs.texts import clean, progress_in_words, shorten


def test_ordinary_text_stays_as_it_is() -> None:
    assert clean("Ωmega \U0001f600\n", 100) == "Ωmega \U0001f600\n"


def test_nul_and_lone_surrogates_become_visible() -> None:
    assert clean("a\x00b\ud800c", 100) == r"a\x00b\ud800c"


@pytest.mark.parametrize("text", ["x" * 1000, "Ω" * 1000, "\ud800" * 1000, "\0" * 999])
@pytest.mark.parametrize("size", [0, 1, 10, 50, 100, 333])
def test_the_size_is_kept_in_bytes(text: str, size: int) -> None:
    assert len(clean(text, size).encode()) <= size


def test_head_and_tail_are_kept_with_a_notice_between() -> None:
    short = clean("head" + "x" * 10_000 + "tail", 200)
    assert short.startswith("headx")
    assert short.endswith("xtail")
    assert "bytes left out" in short


def test_huge_text_is_cut_before_it_is_encoded() -> None:
    short = clean("head" + "x" * 50_000_000 + "tail", 200)
    assert short.startswith("head")
    assert short.endswith("tail")


def test_a_line_shows_that_it_was_cut() -> None:
    assert shorten("abcdef", 6) == "abcdef"
    assert shorten("abcdefg", 6) == "abcde…"


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ('{"current": 3, "total": 10, "message": "pages"}', "3 / 10 pages"),
        ('{"current": 3, "total": null, "message": ""}', "3"),
        ('{"current": 3, "total": null, "message": "pages"}', "3 pages"),
        ("[1]", "[1]"),
        ("no JSON", "no JSON"),
    ],
)
def test_progress_is_told_in_words(told: str, words: str) -> None:
    assert progress_in_words(told) == words
