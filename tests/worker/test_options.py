"""What a worker is told at its start."""

from __future__ import annotations

import os
import socket

import pytest
from django.db import OperationalError, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.test import override_settings

from django_jobs.worker.options import (
    WorkerOptions,
    check_name,
    kind_of,
    parse_queues,
    serves,
    usable_cores,
)


@pytest.mark.parametrize(
    ("text", "queues", "weights"),
    [
        ("", (), ()),
        ("a", ("a",), ()),
        ("b,a", ("b", "a"), ()),
        (" a , b ,", ("a", "b"), ()),
        ("a:6,b:3", ("a", "b"), (6, 3)),
        ("a:1000", ("a",), (1000,)),
        (" a:6 , b:3 ", ("a", "b"), (6, 3)),
        ("a : 6", ("a",), (6,)),
        ("eu:mail:2", ("eu:mail",), (2,)),
        ("größe,邮件", ("größe", "邮件"), ()),
        ("a" * 100, ("a" * 100,), ()),
    ],
)
def test_queues_are_read(
    text: str, queues: tuple[str, ...], weights: tuple[int, ...]
) -> None:
    assert parse_queues(text) == (queues, weights)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a:2,b", "every queue a weight or none"),
        ("a,b:2", "every queue a weight or none"),
        ("a,a", "only once"),
        ("a:1,a:2", "only once"),
        (":3", "needs a name"),
        (" :3", "needs a name"),
        (",", "no queue is named"),
        ("a:", "a weight is a whole number"),
        ("a:x", "a weight is a whole number"),
        ("a:0", "a weight is a whole number"),
        ("a:-1", "a weight is a whole number"),
        ("a:1.5", "a weight is a whole number"),
        ("a:1001", "a weight is a whole number"),
        ("a:" + "9" * 5000, "a weight is a whole number"),
        ("a,\udcff", r"the name of a queue is .*, not '\\udcff'"),
        ("\udcff:2", r"the name of a queue is .*, not '\\udcff'"),
        ("a\nb", "printable"),
        ("a\0", "printable"),
        ("a" * 101, "1 to 100 .* not 'a{58}…$"),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_reason(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_queues(text)


@pytest.mark.parametrize("name", ["\udcff", "a\nb", "a\0", "\x1b[31m", "a" * 201])
def test_a_name_that_cannot_be_shown_or_stored_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="a worker is 1 to 200 printable") as error:
        check_name(name)
    str(error.value).encode()
    assert str(error.value).isprintable()


@pytest.mark.parametrize("name", ["mail-1", "größe 邮件 🙂", "a" * 200])
def test_any_other_name_is_taken(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize("text", ["all", "b,a", "a:6,b:3"])
def test_queues_are_described_as_they_are_given(text: str) -> None:
    queues, weights = parse_queues("" if text == "all" else text)
    options = WorkerOptions(database="default", queues=queues, weights=weights)
    assert options.describe_queues() == text


def test_excluded_queues_are_described() -> None:
    options = WorkerOptions(database="default", exclude=("a", "b"))
    assert options.describe_queues() == "all except a,b"


@pytest.mark.parametrize(
    ("described", "is_served"),
    [
        ("all", True),
        ("", True),
        ("mail", True),
        ("reports,mail", True),
        ("reports:6,mail:3", True),
        ("reports", False),
        ("mails", False),
        ("all except reports", True),
        ("all except reports,mail", False),
        ("words of a later: version", True),
    ],
)
def test_what_is_described_tells_which_queues_are_served(
    described: str, is_served: bool
) -> None:
    assert serves(described, "mail") is is_served


def test_the_defaults_fit_the_machine() -> None:
    options = WorkerOptions(database="default")
    assert options.processes == usable_cores()
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)
    assert options.name == socket.gethostname()


def test_the_cores_are_those_that_this_process_may_use(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5}, raising=False)
    assert usable_cores() == 2


def test_the_kind_of_a_database_is_known_without_its_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def ask(self: BaseDatabaseWrapper) -> str:
        raise OperationalError("away")

    monkeypatch.setattr(type(connections["default"]), "display_name", property(ask))
    assert kind_of("default") == connections["default"].vendor


def test_queues_that_the_settings_do_not_declare_are_remarked_upon() -> None:
    mistaken = WorkerOptions(database="default", queues=("mial", "default"))
    assert mistaken.undeclared() == ""
    with override_settings(DJANGO_JOBS={"QUEUES": ["default", "mail"]}):
        assert mistaken.undeclared() == (
            "DJANGO_JOBS['QUEUES'] does not have 'mial'. Did you mean 'mail'?"
        )
        both = WorkerOptions(database="default", exclude=("old", "older"))
        assert both.undeclared().endswith("does not have 'old', 'older'.")
        right = WorkerOptions(database="default", queues=("mail",))
        assert right.undeclared() == ""
