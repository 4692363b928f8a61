"""Values travel as ASCII JSON and come back; what cannot is refused by its path."""

from __future__ import annotations

import json
import random
import sys
import time as clock
from collections import OrderedDict, namedtuple
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from django.contrib.auth.models import User
from django.utils.safestring import mark_safe
from django.utils.translation import gettext_lazy

from django_jobs.exceptions import InvalidArguments
from django_jobs.serializers import dumps, loads

Point = namedtuple("Point", "x y")


class Colour(Enum):
    RED = "red"


class Size(IntEnum):
    BIG = 3


class Mood(StrEnum):
    GOOD = "good"


ROUND_TRIPS = [
    None,
    True,
    False,
    0,
    -1,
    2**64,
    -(10**400),
    10**4300 - 1,
    1.5,
    -0.0,
    1e16,
    1e22,
    1e308,
    5e-324,
    0.1,
    "",
    "plain",
    "naïve Ωmega \u2028 \U0001f600",
    "NUL \x00 in the middle",
    "\ud800 a lone high surrogate",
    "a lone low one \udfff",
    "a pair in two code points \ud83d\ude00",
    "\udfff\ud800 in the wrong order",
    '{"$date": "looks like JSON"}',
    [],
    {},
    [[], [{}], {"a": []}],
    {"": None, "NUL \x00": 1, "\ud800": 2, "Ω": [1, 2.5, "x", None, True]},
    list(range(1000)),
    ["word"] * 1000,
    [0.5] * 1000,
    [2**70] * 20,
    ["\udfff\ud83d\ude00\ud800"] * 20,
    datetime(2026, 11, 21, 12, 30, 15, 123456),
    datetime(2026, 11, 21, tzinfo=UTC),
    datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14))),
    datetime(9999, 12, 31, 23, 59, 59, 999999),
    datetime(2026, 7, 1, tzinfo=ZoneInfo("Europe/Vienna")),
    date(2026, 11, 21),
    time(23, 59, 59, 999999),
    time(1, 2, tzinfo=timezone(timedelta(minutes=-90))),
    timedelta(days=-1, microseconds=1),
    timedelta.max,
    timedelta.min,
    Decimal("1.10"),
    Decimal("-0"),
    Decimal("1E+1000000"),
    Decimal("123456789012345678901234567890.123456789"),
    UUID("01990000-0000-7000-8000-000000000000"),
    {"when": [datetime(2026, 1, 1), {"cost": Decimal("0.30")}]},
    {"$date": "2026-11-21"},
    {"$": 1},
    {"$$date": 1},
    {"$date": "2026-11-21", "and": "more"},
    {"$unknown": {"$uuid": {"$$": []}}},
]


@pytest.mark.parametrize("value", ROUND_TRIPS, ids=lambda value: repr(value)[:40])
def test_a_value_comes_back_as_it_was(value: Any) -> None:
    text = dumps(value)
    assert loads(text) == value
    assert type(loads(text)) is type(value)
    assert text.isascii()
    assert "\x00" not in text


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ((1, (2, 3)), [1, [2, 3]]),
        (Point(1, 2), [1, 2]),
        (OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
        (Size.BIG, 3),
        (Mood.GOOD, "good"),
        ({Mood.GOOD: 1}, {"good": 1}),
        (mark_safe("<b>"), "<b>"),
        (gettext_lazy("Yes"), "Yes"),
    ],
)
def test_relatives_of_the_json_types_come_back_as_those(
    value: Any, expected: Any
) -> None:
    assert loads(dumps(value)) == expected


def test_the_order_of_keys_is_kept() -> None:
    assert list(loads(dumps({"b": 1, "a": 2, "c": 3}))) == ["b", "a", "c"]


def test_text_is_compact() -> None:
    assert dumps([1, {"a": None}]) == '[1,{"a":null}]'


@pytest.mark.parametrize(
    ("value", "path", "words"),
    [
        ([{"user": {1, 2}}], "args[0]['user']", "sorted("),
        ([{"a": [0, frozenset()]}], "args[0]['a'][1]", "sorted("),
        ([b"raw"], "args[0]", "base64"),
        ([bytearray(b"raw")], "args[0]", "base64"),
        (
            [1, object()],
            "args[1]",
            "object is no JSON type; pass text, numbers, lists, dicts, or datetime, "
            "date, time, timedelta, Decimal and UUID",
        ),
        ([1, print], "args[1]", "no JSON type"),
        ([Colour.RED], "args[0]", "pass its value"),
        ([User(pk=1)], "args[0]", "pass its pk"),
        ([[0] * 20 + [User(pk=1)]], "args[0][20]", "pass its pk"),
        ([User.objects.all()], "args[0]", 'values_list("pk"'),
        ([{1: "x"}], "args[0]", "the key 1 is not a string"),
        ([{"a": {None: 1}}], "args[0]['a']", "the key None is not a string"),
        ([{("a", "b"): 1}], "args[0]", "the key ('a', 'b') is not a string"),
        ([{"\ud83d\ude00": 1}], "args[0]", "not a string that JSON can keep"),
        ([float("nan")], "args[0]", "nan has no place in JSON"),
        ([[1.0] * 20 + [float("inf")]], "args[0][20]", "inf has no place in JSON"),
        ([{"a": -float("inf")}], "args[0]['a']", "-inf has no place"),
        ([Decimal("NaN")], "args[0]", "Decimal NaN has no place"),
        ([Decimal("Infinity")], "args[0]", "Decimal Infinity has no place"),
        ([10**4300], "args[0]", "more than 4300 digits"),
        ([[1] * 20 + [-(10**5000)]], "args[0][20]", "more than 4300 digits"),
        ([time(1, tzinfo=ZoneInfo("Europe/Vienna"))], "args[0]", "without a date"),
        ([1 + 2j], "args[0]", "complex is no JSON type"),
        ([iter([1])], "args[0]", "no JSON type"),
    ],
    ids=lambda value: repr(value)[:40] if not isinstance(value, list) else None,
)
def test_what_is_no_json_is_refused_by_its_path(
    value: Any, path: str, words: str
) -> None:
    with pytest.raises(InvalidArguments) as caught:
        dumps(value, path="args")
    assert str(caught.value).startswith(f"{path}: ")
    assert words in str(caught.value)


def test_a_value_that_contains_itself_is_refused_as_such() -> None:
    value: dict[str, Any] = {"a": []}
    value["a"].append(value)
    with pytest.raises(InvalidArguments, match="contains itself"):
        dumps(value, path="args")


def nested(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels - 1):
        value = [value]
    return value


def test_depth_is_allowed_up_to_the_limit() -> None:
    assert loads(dumps(nested(100), max_depth=100)) == nested(100)


def test_deeper_than_the_limit_is_refused() -> None:
    with pytest.raises(InvalidArguments, match=r"args\[0\].*than PAYLOAD_MAX_DEPTH$"):
        dumps(nested(101), path="args", max_depth=100)


def test_depth_counts_in_dicts_too() -> None:
    with pytest.raises(InvalidArguments, match="too deeply"):
        dumps({"a": {"b": {}}}, max_depth=2)


def test_depth_beyond_the_interpreter_is_refused_too() -> None:
    with pytest.raises(InvalidArguments, match="too deeply"):
        dumps(nested(100_000), max_depth=1_000_000)


def test_a_long_path_shows_its_start_and_its_end() -> None:
    value: Any = object()
    for _ in range(50):
        value = [value]
    with pytest.raises(InvalidArguments) as caught:
        dumps(value, path="args")
    assert str(caught.value).startswith("args[0][0][0][0]...[0][0][0][0]: object")


def test_ints_are_refused_whatever_limit_this_interpreter_has() -> None:
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        for value in (10**4300, [10**4300] * 20):
            with pytest.raises(InvalidArguments, match="4300 digits"):
                dumps(value)
    finally:
        sys.set_int_max_str_digits(before)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[1,]",
        '{"$later": 1}',
        '{"$datetime": "yesterday"}',
        '{"$datetime": 5}',
        '{"$timedelta": [1, 2, 3, 4, 5, 6, 7, 8]}',
        '{"$decimal": "1,5"}',
        '{"$uuid": "x"}',
        "[" * 100_000,
        "1" * 5000,
    ],
    ids=lambda text: text[:20],
)
def test_text_that_was_never_written_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        loads(text)


#: What may stand behind a tag that somebody has forged.
_LEAVES = [
    *(None, True, 0, -1, 2**70, 1e300, float("nan"), float("-inf"), "", "x", "\0"),
    *("9" * 5000, "1e999999999999999999", "sNaN", "0001-01-01T00:00:00+23:59"),
    *("urn:uuid:", "{" * 32, "\ud800"),
]
_TAGS = ["$datetime", "$date", "$time", "$timedelta", "$decimal", "$uuid", "$text"]


def _forged(dice: random.Random, depth: int = 4) -> Any:
    kind = dice.choice(["leaf", "tag", "list", "dict"]) if depth else "leaf"
    if kind == "leaf":
        return dice.choice(_LEAVES)
    items = [_forged(dice, depth - 1) for _ in range(dice.choice([0, 1, 1, 2, 3, 7]))]
    if kind == "tag":
        return {dice.choice(_TAGS): _forged(dice, depth - 1)}
    return items if kind == "list" else {str(n): each for n, each in enumerate(items)}


def test_a_forged_tag_is_a_value_or_a_value_error() -> None:
    dice, refused = random.Random(1), 0
    for _ in range(5000):
        text = json.dumps({dice.choice(_TAGS): _forged(dice)})
        try:
            loads(text)
        except ValueError as error:
            assert str(error), text
            refused += 1
    assert 1000 < refused < 5000


def test_plain_arguments_cost_little_more_than_json_itself() -> None:
    started = clock.perf_counter()
    for _ in range(2000):
        dumps((42, "a@example.org", True), path="args")
    assert (clock.perf_counter() - started) / 2000 < 100e-6
