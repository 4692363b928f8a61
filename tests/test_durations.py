"""Lengths of time, written and read."""

from __future__ import annotations

import pytest

from django_jobs.durations import in_words, parse


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("10s", 10), ("5m", 300), ("2h", 7200), ("7d", 604_800), (" 1.5h ", 5400)],
)
def test_a_length_is_a_number_and_a_unit(text: str, seconds: float) -> None:
    assert parse(text) == seconds


@pytest.mark.parametrize("text", ["", "7", "d", "-1s", "7 days", "1e3s", "7x", "1d2h"])
def test_other_texts_are_refused_with_examples(text: str) -> None:
    with pytest.raises(ValueError, match="write 10s, 5m, 2h or 7d"):
        parse(text)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 ms"),
        (0.1234, "123 ms"),
        (1, "1 s"),
        (59.94, "59.9 s"),
        (59.97, "1 min"),
        (61, "1 min 1 s"),
        (3600, "1 h"),
        (7_500, "2 h 5 min"),
        (86_400 * 3 + 7_300, "3 d 2 h"),
    ],
)
def test_words_have_the_two_largest_units(seconds: float, words: str) -> None:
    assert in_words(seconds) == words
