"""What a task changes for its whole process is put back, part by part."""

from __future__ import annotations

import decimal
import errno
import importlib
import logging
import os
import signal
import sys
import threading
import timeit
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from django_jobs.worker import tidying
from django_jobs.worker.tidying import Surroundings, fresh_context, is_shortage
from tests.processes import wrecking

#: Of a context: nothing is to be put back.
IN_CONTEXT = {"language", "time zone", "decimals", "context"}
KINDS = sorted((wrecking.CHANGES | wrecking.SIGNALS).keys() - IN_CONTEXT)


@pytest.fixture
def surroundings() -> Iterator[Surroundings]:
    variables, folder = os.environ._data, os.getcwd()  # type: ignore[attr-defined]
    made = Surroundings()
    before = wrecking.state()
    yield made
    made._mend()
    os.environ._data = os.environb._data = variables  # type: ignore[attr-defined]
    os.close(made._folder)
    os.chdir(folder)
    assert wrecking.state() == before


@pytest.mark.parametrize("kind", KINDS)
def test_a_change_is_put_back(
    surroundings: Surroundings, tmp_path: Path, kind: str
) -> None:
    before = wrecking.state()
    (wrecking.CHANGES | wrecking.SIGNALS)[kind](str(tmp_path / "new"))
    with suppress(OSError):  # it may have no folder any more
        assert wrecking.state() != before
    assert surroundings.put_back()
    assert wrecking.state() == before


@pytest.mark.parametrize("kind", wrecking.BREAKS)
def test_what_is_not_even_there_is_put_back(
    surroundings: Surroundings, kind: str
) -> None:
    before = wrecking.state()
    kept = sys.stdout, logging.root.handlers, warnings.filters
    try:
        wrecking.BREAKS[kind]("")
        is_whole = surroundings.put_back()
        after = wrecking.state() if is_whole else None
    finally:  # or there would be no report
        sys.stdout, logging.root.handlers, warnings.filters = kept
    assert after == before


@pytest.mark.parametrize("broken", [(tidying.os, "fchdir"), (Surroundings, "_look")])
def test_an_error_on_the_way_means_that_another_process_must_do(
    surroundings: Surroundings, monkeypatch: pytest.MonkeyPatch, broken: Any
) -> None:
    def fail(*args: object) -> None:
        raise TypeError("not callable")

    with monkeypatch.context() as patch:
        patch.setattr(*broken, fail)
        assert not surroundings.put_back()
    assert surroundings.put_back()


def test_so_does_a_handler_of_a_signal_that_was_held_back(
    surroundings: Surroundings,
) -> None:
    def leave(number: int, frame: object) -> None:
        raise SystemExit

    before = signal.signal(signal.SIGUSR2, leave)
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
        signal.raise_signal(signal.SIGUSR2)  # to this thread
        assert not surroundings.put_back()
    finally:
        signal.signal(signal.SIGUSR2, before)


LAZY = """
import logging, os, warnings
os.environ["LAZY"] = os.environ["TZ"] = os.environ["HOME"] = "set by the module"
warnings.filterwarnings("ignore", "by the module")
warnings.filterwarnings("ignore", "by the module, last", append=True)
warnings.filterwarnings("ignore", "by the module")  # as another one may
logging.getLogger("lazy").disabled = True
"""


@pytest.fixture
def lazy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    (tmp_path / "lazy_module.py").write_text(LAZY)
    monkeypatch.syspath_prepend(tmp_path)
    yield "lazy_module"
    sys.modules.pop("lazy_module", None)
    logging.getLogger("lazy").disabled = False


def filters() -> list[str]:
    return [each[1].pattern for each in warnings.filters if each[1]]  # type: ignore[union-attr]


def test_what_a_module_adds_while_it_is_imported_stays(
    monkeypatch: pytest.MonkeyPatch, lazy: str
) -> None:
    variables = os.environ._data  # type: ignore[attr-defined]
    home = os.environ.get("HOME")
    monkeypatch.delenv("TZ", raising=False)
    surroundings = Surroundings()
    try:
        importlib.import_module(lazy)
        # No module, but the task itself.
        os.environ["OWN"] = "set by the task"
        warnings.filterwarnings("ignore", "by the task")
        assert surroundings.put_back()
        kept = {name: os.environ.get(name) for name in ("LAZY", "OWN", "HOME", "TZ")}
        added = {"LAZY": "set by the module", "OWN": None}
        assert kept == {**added, "HOME": home, "TZ": None}
        ours = [each for each in filters() if each.startswith("by the")]
        assert ours == ["by the module", "by the module, last"]
        assert logging.getLogger("lazy").disabled
        os.environ["LAZY"] = "set by another task"
        warnings.resetwarnings()
        assert surroundings.put_back()
        assert os.environ["LAZY"] == "set by the module"
        assert filters()[0] == "by the module"
    finally:
        os.environ.pop("LAZY", None)
        os.environ._data = os.environb._data = variables  # type: ignore[attr-defined]
        os.close(surroundings._folder)


@pytest.mark.parametrize("kind", ["folder", "umask", "environment", "recursion"])
def test_what_threads_share_is_left_while_others_run(
    surroundings: Surroundings, kind: str
) -> None:
    before = wrecking.state()
    wrecking.CHANGES[kind]("")
    changed = wrecking.state()
    assert surroundings.put_back(is_alone=False)
    assert wrecking.state() == changed != before
    surroundings.put_back()


def test_signals_are_unblocked_also_while_others_run(
    surroundings: Surroundings,
) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    surroundings.put_back(is_alone=False)
    assert signal.SIGUSR1 not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_what_cannot_be_put_back_in_this_thread_is_told(
    surroundings: Surroundings,
) -> None:
    signal.signal(signal.SIGTERM, lambda *args: None)
    answers: list[bool] = []
    thread = threading.Thread(target=lambda: answers.append(surroundings.put_back()))
    thread.start()
    thread.join()
    assert (answers, surroundings.put_back()) == ([False], True)


@pytest.mark.parametrize("is_alone", [True, False])
@pytest.mark.parametrize("is_replaced", [True, False])
def test_closed_descriptors_are_told(
    surroundings: Surroundings, is_alone: bool, is_replaced: bool
) -> None:
    for descriptor in (1, 2, surroundings._folder):
        kept = os.dup(descriptor)
        os.close(descriptor)
        other = os.open(os.devnull, os.O_RDONLY) if is_replaced else None
        try:
            assert other in (None, descriptor)
            assert not surroundings.put_back(is_alone=is_alone)
        finally:
            os.dup2(kept, descriptor)
            os.close(kept)
        assert surroundings.put_back(is_alone=is_alone)


@pytest.mark.parametrize(
    ("error", "is_one"),
    [
        (MemoryError(), True),
        (OSError(errno.EAGAIN, "no more processes"), True),
        (OSError(errno.EMFILE, "too many open files"), True),
        (RuntimeError("can't start new thread"), True),
        (FileNotFoundError(errno.ENOENT, "not there"), False),
        (RuntimeError("something else"), False),
        (ValueError("can't start new thread"), False),
    ],
)
def test_a_shortage_is_told_from_other_errors(
    error: BaseException, is_one: bool
) -> None:
    assert is_shortage(error) is is_one


@pytest.mark.parametrize("raised", [ValueError, SystemExit])
def test_an_error_that_cannot_be_asked_is_no_shortage(
    raised: type[BaseException],
) -> None:
    class Silent(RuntimeError):
        def __str__(self) -> str:
            raise raised("not even this")

    class Disguised(Exception):
        @property
        def __class__(self) -> Any:
            raise raised("not even this")

    assert is_shortage(Silent()) is False
    assert is_shortage(Disguised()) is False


def test_attempts_share_no_decimals_and_begin_with_those_of_the_project(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tidying, "_context", tidying._context)
    default = decimal.DefaultContext.copy()
    try:
        with decimal.localcontext(prec=41):
            tidying.keep_context()
        context = fresh_context()
        assert context.run(decimal.getcontext).prec == 41
        context.run(lambda: setattr(decimal.getcontext(), "prec", 3))
        assert fresh_context().run(decimal.getcontext).prec == 41
    finally:
        decimal.DefaultContext.prec = default.prec


def test_attempts_begin_with_what_the_project_has_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tidying, "_context", tidying._context)
    token = wrecking.spoken.set("by the project")
    try:
        tidying.keep_context()
    finally:
        wrecking.spoken.reset(token)
    context = fresh_context()
    assert context.run(wrecking.spoken.get) == "by the project"
    context.run(wrecking.spoken.set, "by a task")
    assert fresh_context().run(wrecking.spoken.get) == "by the project"


def test_it_costs_less_than_setting_one_signal_handler(
    surroundings: Surroundings,
) -> None:
    def handler(number: int, frame: object) -> None: ...

    before = signal.signal(signal.SIGALRM, handler)
    try:
        unit = _seconds(lambda: signal.signal(signal.SIGALRM, handler))
    finally:
        signal.signal(signal.SIGALRM, before)
    # 2.2 against 4.5 microseconds on Python 3.11; 3.12 made the unit cheaper.
    assert _seconds(surroundings.put_back) < 3 * unit


def _seconds(work: object) -> float:
    return min(timeit.repeat(work, number=200, repeat=200))  # type: ignore[arg-type]
