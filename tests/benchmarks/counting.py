"""Reads what tasks noted, and counts it the same way for everybody."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Note:
    """One line of the file that all tasks append to."""

    event: str
    key: str
    pid: int
    session: int
    time: float


@dataclass(frozen=True)
class Notes:
    """All lines so far, in the order in which they were written."""

    lines: tuple[Note, ...]

    @classmethod
    def read(cls, path: Path) -> Notes:
        """Read all whole lines; a process may be writing the next one."""
        text = path.read_text() if path.exists() else ""
        return cls(tuple(_parse(line) for line in text.split("\n")[:-1]))

    def starts(self, keys: Collection[str] | None = None) -> list[Note]:
        return self._events("start", keys)

    def ends(self, keys: Collection[str] | None = None) -> list[Note]:
        return self._events("end", keys)

    def finished(self, keys: Collection[str]) -> set[str]:
        return {note.key for note in self.ends(keys)}

    def running(self, keys: Collection[str]) -> set[str]:
        """Return the keys that were started and have not ended."""
        return {note.key for note in self.starts(keys)} - self.finished(keys)

    def first_start_after(self, moment: float, keys: Collection[str]) -> float | None:
        """Return the seconds until work went on after a moment."""
        later = (note.time for note in self.starts(keys) if note.time > moment)
        first = next(later, None)
        return None if first is None else first - moment

    def _events(self, event: str, keys: Collection[str] | None) -> list[Note]:
        wanted = None if keys is None else frozenset(keys)
        return [
            note
            for note in self.lines
            if note.event == event and (wanted is None or note.key in wanted)
        ]


def _parse(line: str) -> Note:
    event, key, pid, session, time = line.split()
    return Note(event, key, int(pid), int(session), float(time))


@dataclass(frozen=True)
class Count:
    """What became of the tasks that were accepted."""

    enqueued: int
    finished: int
    #: Not finished, and the queue has nothing left to do.
    lost: int
    #: Not finished, and still in the queue when the waiting was over.
    stuck: int
    #: Started more than once, and how often in all beyond the first time.
    twice: int
    extra: int
    waited: float

    @property
    def is_whole(self) -> bool:
        return self.finished == self.enqueued

    def words(self) -> str:
        """Return the beginning of a cell."""
        missing = []
        if self.lost:
            missing.append(f"{self.lost} of {self.enqueued} never finished")
        if self.stuck:
            missing.append(f"{self.stuck} of {self.enqueued} stuck")
        if missing:
            missing[-1] += f" (waited {self.waited:.0f} s)"
        else:
            missing = [f"all {self.enqueued} finished"]
        return ", ".join([*missing, f"{self.twice} twice"])


def count(
    notes: Notes, keys: Collection[str], unfinished: int | None, waited: float
) -> Count:
    """Count; ``unfinished`` is what the queue itself says it has, None if silent."""
    runs = Counter(note.key for note in notes.starts(keys))
    missing = len(keys) - len(notes.finished(keys))
    stuck = missing if unfinished is None else min(missing, unfinished)
    return Count(
        enqueued=len(keys),
        finished=len(keys) - missing,
        lost=missing - stuck,
        stuck=stuck,
        twice=sum(number > 1 for number in runs.values()),
        extra=sum(number - 1 for number in runs.values()),
        waited=waited,
    )
