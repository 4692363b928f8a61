"""An exception as text: class, message, traceback and fingerprint.

Whatever the exception does when it is asked (a ``__str__`` that raises, causes in a
circle, text that no database takes), a record comes back.
"""

from __future__ import annotations

import sysconfig
import traceback
from functools import cache
from hashlib import blake2b
from types import TracebackType

from django_jobs.records import ErrorRecord
from django_jobs.texts import clean, shorten

#: Length of the column.
_CLASS_LENGTH = 200
_MESSAGE_MAX_BYTES = 8 * 1024
#: Exceptions, frames and lines of messages that are written out in full together.
_MOST_PARTS = 5000
#: Of one that has more.
_MOST_FRAMES = 100
_NAME, _QUALNAME, _MODULE = (
    vars(type)[each].__get__ for each in ("__name__", "__qualname__", "__module__")
)


def record_error(error: BaseException, max_bytes: int = 64 * 1024) -> ErrorRecord:
    """Describe an exception; the traceback begins where the package calls the task."""
    name = class_path(type(error))
    start, place = _origin(error)
    return ErrorRecord(
        exception_class=name,
        message=clean(_message(error), min(max_bytes, _MESSAGE_MAX_BYTES)),
        traceback=clean(_traceback(error, start), max_bytes),
        fingerprint=fingerprint(name, place),
    )


def class_path(cls: type) -> str:
    """Return the dotted path of a class, as long as the column for it at most.

    Past its metaclass, which may answer anything, or raise.
    """
    module, name = _MODULE(cls), _QUALNAME(cls)
    path = f"{module if type(module) is str else '?'}.{name}"
    return shorten(clean(path, 4 * _CLASS_LENGTH), _CLASS_LENGTH)


def name_of(cls: type) -> str:
    """Return the name of a class, whatever its metaclass would say."""
    name: str = _NAME(cls)
    return name


def fingerprint(*parts: str) -> str:
    """Return 16 hex digits that are equal for equal parts."""
    text = "\n".join(parts).encode("utf-8", "backslashreplace")
    return blake2b(text, digest_size=8).hexdigest()


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException as problem:
        return f"(its message cannot be had: {name_of(type(problem))})"


def _traceback(error: BaseException, start: TracebackType | None) -> str:
    try:
        if _is_boundless(error):
            return _short_traceback(error, start)
        return "".join(traceback.format_exception(type(error), error, start))
    except BaseException as problem:
        return f"(its traceback cannot be had: {name_of(type(problem))})"


def _origin(error: BaseException) -> tuple[TracebackType | None, str]:
    """Return where the task begins in the traceback, and the place of its own code."""
    try:
        start = _outside_package(error.__traceback__)
        return start, _own_place(start)
    except BaseException:
        return None, ""


def _is_boundless(error: BaseException) -> bool:
    """Tell whether the standard library would take seconds to write it out.

    It looks at every cause, every member of a group, every frame and every line of a
    message before it leaves most of them out.
    """
    room = _MOST_PARTS
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting and room > 0:
        each = waiting.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        room -= 1 + _length(each.__traceback__, room) + _lines(each)
        waiting += (each.__cause__, each.__context__)
        if isinstance(each, BaseExceptionGroup):
            if len(each.exceptions) > room:  # some may be there several times
                return True
            waiting += each.exceptions
    return room <= 0


def _length(step: TracebackType | None, most: int) -> int:
    """Return how many frames there are, or a number that is too large."""
    count = 0
    while step is not None and count <= most:
        step, count = step.tb_next, count + 1
    return count


def _lines(error: BaseException) -> int:
    return _message(error).count("\n")


def _short_traceback(error: BaseException, start: TracebackType | None) -> str:
    """Return the last frames and the message, without causes and without a group."""
    frames = traceback.StackSummary.extract(
        traceback.walk_tb(_last_of(start)), lookup_lines=False
    )
    return (
        f"(the last {_MOST_FRAMES} frames at most, without what led to the error)\n"
        + "".join(frames.format())
        + f"{class_path(type(error))}: {_message(error)}\n"
    )


def _last_of(start: TracebackType | None) -> TracebackType | None:
    """Skip all but the last frames."""
    first, last = start, start
    for _ in range(_MOST_FRAMES):
        last = last and last.tb_next
    while last is not None and first is not None:
        first, last = first.tb_next, last.tb_next
    return first


def _outside_package(start: TracebackType | None) -> TracebackType | None:
    """Skip the frames of this package that led to the task."""
    rest = start
    while rest is not None and _module(rest).startswith("django_jobs."):
        rest = rest.tb_next
    return rest or start


def _own_place(start: TracebackType | None) -> str:
    """Name the innermost function of the project's own code.

    Without line numbers, so that an edit further up does not make a new fingerprint.
    """
    last = own = start
    while last is not None:
        if _is_own(last.tb_frame.f_code.co_filename):
            own = last
        last = last.tb_next
    if own is None:
        return ""
    return f"{_module(own)}.{own.tb_frame.f_code.co_qualname}"


def _module(step: TracebackType) -> str:
    return str(step.tb_frame.f_globals.get("__name__", ""))


def _is_own(filename: str) -> bool:
    return not filename.startswith(_library_folders())


@cache
def _library_folders() -> tuple[str, ...]:
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    return ("<frozen ", *(sysconfig.get_path(name) for name in names))
