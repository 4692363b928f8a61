"""Whether arguments fit a function is said as Python would say it."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable
from typing import Any

import pytest

from django_jobs.parameters import Parameters

FUNCTIONS: list[Callable[..., Any]] = [
    lambda: None,
    lambda a: None,
    lambda a, b=1: None,
    lambda a, /, b: None,
    lambda a, /, b=1, *c: None,
    lambda a, *, b: None,
    lambda a, *, b=1: None,
    lambda *a: None,
    lambda **a: None,
    lambda a, *b, c, **d: None,
]
ARGS = [(), (1,), (1, 2), (1, 2, 3)]
NAMES = ["a", "b", "c", "x"]
KWARGS = [
    dict.fromkeys(names)
    for length in range(4)
    for names in itertools.combinations(NAMES, length)
]


@pytest.mark.parametrize("function", FUNCTIONS, ids=inspect.signature)
def test_arguments_fit_exactly_when_python_could_call(
    function: Callable[..., Any],
) -> None:
    parameters = Parameters(function, skip_first=False)
    for args, kwargs in itertools.product(ARGS, KWARGS):
        try:
            function(*args, **kwargs)
            fits = True
        except TypeError:
            fits = False
        assert (parameters.misfit(args, kwargs) is None) is fits, (args, kwargs)


def test_a_misfit_is_named() -> None:
    parameters = Parameters(lambda user_id, flag=False: None, skip_first=False)
    assert parameters.misfit((), {}) == "missing a required argument: 'user_id'"


def test_the_context_is_left_out() -> None:
    parameters = Parameters(lambda context, a: None, skip_first=True)
    assert parameters.misfit((1,), {}) is None
    assert parameters.misfit((1, 2), {}) is not None


def test_names_are_found_wherever_their_values_are() -> None:
    parameters = Parameters(lambda a, b, *c, d=1, **e: None, skip_first=False)
    assert parameters.places(["b"], (1, 2), {}) == {"b", 1} - {"b"}
    assert parameters.places(["b"], (1,), {"b": 2}) == {1, "b"}
    assert parameters.places(["c"], (1, 2, 3, 4), {}) == {2, 3}
    assert parameters.places(["e"], (1, 2), {"d": 1, "x": 2}) == {"x"}
    assert parameters.places(["x"], (1, 2), {"x": 2}) == {"x"}
