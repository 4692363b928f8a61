"""What takes the place of a standard stream; what it does not do is asked of that."""

from __future__ import annotations

import io
from typing import Any, TextIO


class StandIn(io.TextIOBase):
    """A stream in front of another; a subclass says what becomes of texts."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        if name == "_stream":  # not there yet
            raise AttributeError(name)
        return getattr(self._stream, name)

    def writable(self) -> bool:
        return True

    # What the base class has by itself is not asked for through __getattr__.

    def fileno(self) -> int:
        return self._stream.fileno()

    def isatty(self) -> bool:
        return self._stream.isatty()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._stream.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        return self._stream.errors

    @property
    def newlines(self) -> Any:  # type: ignore[override]
        return self._stream.newlines

    @property
    def buffer(self) -> object:
        """The bytes beneath; who writes there writes past us."""
        return getattr(self._stream, "buffer", None)
