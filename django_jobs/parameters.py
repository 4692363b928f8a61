"""Do these arguments fit the function? Asked at every enqueue."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from inspect import Parameter, Signature
from typing import Any

_POSITIONAL = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
_KEYWORD = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)


class Parameters:
    """The parameters of a task's function, without the context."""

    __slots__ = ("_at_least", "_at_most", "names", "signature")

    def __init__(self, function: Callable[..., Any], *, skip_first: bool) -> None:
        signature = _signature_of(function)
        parameters = [*signature.parameters.values()][skip_first:]
        self.signature = signature.replace(parameters=parameters)
        self.names = tuple(each.name for each in parameters)
        self._at_least, self._at_most = _simple_range(parameters)

    def misfit(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str | None:
        """Return what is wrong with the arguments, None when they fit."""
        if not kwargs and self._at_least <= len(args) <= self._at_most:
            return None
        try:
            self.signature.bind(*args, **kwargs)
        except TypeError as error:
            return str(error)
        return None

    @property
    def takes_any_keyword(self) -> bool:
        return self._named_by(Parameter.VAR_KEYWORD) is not None

    def places(
        self, names: Collection[str], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> set[int | str]:
        """Return where the named parameters are among the arguments."""
        found: set[int | str] = {key for key in kwargs if key in names}
        for place, name in enumerate(self._positional()):
            if name in names:
                found.add(place)
        if self._named_by(Parameter.VAR_POSITIONAL) in names:
            found.update(range(len(self._positional()), len(args)))
        if self._named_by(Parameter.VAR_KEYWORD) in names:
            found.update(kwargs.keys() - set(self.names))
        return found

    def _positional(self) -> list[str]:
        parameters = self.signature.parameters.values()
        return [each.name for each in parameters if each.kind in _POSITIONAL]

    def _named_by(self, kind: Any) -> str | None:
        parameters = self.signature.parameters.values()
        return next((each.name for each in parameters if each.kind is kind), None)


def first_name(function: Callable[..., Any]) -> str | None:
    """Return the name of the first parameter if it can be passed by position."""
    first = next(iter(_signature_of(function).parameters.values()), None)
    return first.name if first is not None and first.kind in _POSITIONAL else None


def _signature_of(function: Callable[..., Any]) -> Signature:
    if sys.version_info >= (3, 14):
        from annotationlib import Format  # names under TYPE_CHECKING stay unresolved

        return inspect.signature(function, annotation_format=Format.FORWARDREF)
    return inspect.signature(function)


def _simple_range(parameters: Sequence[Parameter]) -> tuple[int, float]:
    """Return how many arguments may come by position alone, (1, 0) when none may."""
    if any(
        each.kind is Parameter.KEYWORD_ONLY and each.default is Parameter.empty
        for each in parameters
    ):
        return 1, 0
    positional = [each for each in parameters if each.kind in _POSITIONAL]
    required = sum(each.default is Parameter.empty for each in positional)
    if any(each.kind is Parameter.VAR_POSITIONAL for each in parameters):
        return required, float("inf")
    return required, len(positional)
