"""What children say, and what becomes of those that lie or die."""

from __future__ import annotations

import logging
import selectors
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from django_jobs.records import ClaimedTask, ErrorRecord, Outcome
from django_jobs.states import Reason, Verdict
from django_jobs.worker import processes
from django_jobs.worker.crew import Crew
from django_jobs.worker.dispatcher import Dispatcher
from django_jobs.worker.pool import Phase
from django_jobs.worker.wire import Channel
from tests.worker.parts import NOBODY, SHORT, FakeChild, claimed, ids, outcome, pool_of

GARBAGE = [
    b"not a message\n",
    b"[[[[[[\n",
    b'["done"]\n',
    b'["done", 7]\n',
    b'["done", {}]\n',
    b'["done", ["one", "too short"]]\n',
    b'["returned"]\n',
    b'["returned", 7]\n',
    b'["returned", [[]]]\n',
    b'["broken"]\n',
    b'["worn out"]\n',
    b"[]\n{}\n",
    b"[" * 50_000 + b"\n",
]


class Scene:
    """A crew with children that are played by the test."""

    def __init__(self, **options: Any) -> None:
        self.reported: list[Outcome] = []
        self.selector = selectors.DefaultSelector()
        self.options = options
        self.pool = pool_of(**options)
        self.dispatcher = Dispatcher(self.pool)
        self.reported_as: list[str] = []
        self.crew = Crew(self.pool, self.dispatcher, self.selector, self.report)
        self.others: dict[int, Channel] = {}

    def report(self, outcome: Outcome, worker_id: str) -> None:
        self.reported.append(outcome)
        self.reported_as.append(worker_id)

    def add_child(self, threads: int = 1, **options: Any) -> FakeChild:
        ours, theirs = (Channel(end) for end in socket.socketpair())
        child = FakeChild(threads=threads, channel=ours, **options)
        self.others[child.number] = theirs
        self.pool.children.append(child)
        self.selector.register(
            ours, selectors.EVENT_READ, lambda: self.crew._hear(child)
        )
        return child

    def give(self, count: int = 1, **changes: Any) -> list[ClaimedTask]:
        """Have the dispatcher send tasks."""
        tasks = [claimed(**changes) for _ in range(count)]
        self.dispatcher.take(tasks, now=0)
        self.dispatcher.dispatch(now=0)
        return tasks

    def say(self, child: FakeChild, *messages: list[Any] | bytes) -> None:
        """Have a child say something, and the crew hear what there is to hear."""
        for message in messages:
            raw = message if isinstance(message, bytes) else None
            if raw is not None:
                self.others[child.number].socket.sendall(raw)
            else:
                self.others[child.number].send(message)
        self.hear()

    def hear(self) -> None:
        while events := self.selector.select(0):
            for key, _ in events:
                key.data()

    def told(self, child: FakeChild) -> list[list[Any]]:
        """Return what a child was told and has not read yet."""
        messages = []
        while True:
            try:
                messages += self.others[child.number].receive(socket.MSG_DONTWAIT)
            except BlockingIOError:
                return messages

    def close(self) -> None:
        self.selector.close()
        for channel in self.others.values():
            channel.close()
        for child in self.pool:
            child.channel.close()


@pytest.fixture
def scene() -> Iterator[Scene]:
    made = Scene()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def killed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Kill nothing; return the list of what would have been killed."""
    pids: list[int] = []
    monkeypatch.setattr(processes, "kill_group", pids.append)
    monkeypatch.setattr(processes, "kill_with_group", pids.append)
    return pids


def row(task: ClaimedTask, **changes: Any) -> list[Any]:
    return list(outcome(task, **changes))


# -- what children say -------------------------------------------------------------


def test_a_child_is_given_tasks_when_it_says_that_it_is_ready(scene: Scene) -> None:
    child = scene.add_child()
    child.phase = Phase.STARTING
    (task,) = scene.give()
    assert not scene.told(child)
    scene.say(child, ["ready"])
    scene.dispatcher.dispatch(now=0)
    assert scene.told(child) == [["run", [list(task)]]]


def test_a_retiring_child_does_not_become_ready_again(scene: Scene) -> None:
    child = scene.add_child()
    child.phase = Phase.RETIRING
    scene.say(child, ["ready"])
    assert child.phase is Phase.RETIRING


def test_an_outcome_is_reported_as_it_was(scene: Scene) -> None:
    child = scene.add_child()
    (task,) = scene.give()
    error = ErrorRecord("builtins.KeyError", "7", "Traceback", "0" * 16)
    told = outcome(
        task, verdict=Verdict.FAILED, reason=Reason.GAVE_UP, error=error, log="x"
    )
    scene.say(child, ["done", told])
    assert scene.reported == [told]
    assert [type(each) for each in scene.reported[0]] == [type(each) for each in told]
    assert scene.crew.held_ids() == set()


def test_an_outcome_that_is_recorded_already_is_not_reported(scene: Scene) -> None:
    child = scene.add_child()
    (task,) = scene.give()
    scene.say(child, ["done", row(task, recorded=True)])
    assert scene.reported == []
    assert (scene.crew.finished, child.finished, scene.crew.held_ids()) == (1, 1, set())


def test_run_times_are_learnt(scene: Scene) -> None:
    child = scene.add_child()
    (task,) = scene.give()
    before = scene.dispatcher.demand(0)
    scene.say(child, ["done", row(task)])
    assert scene.dispatcher.demand(0) > before + 10


def test_an_outcome_of_another_lease_is_ignored_and_the_task_kept(
    scene: Scene,
) -> None:
    child = scene.add_child()
    (task,) = scene.give(lease=7)
    scene.say(child, ["done", row(task, lease=6)])
    assert scene.reported == []
    assert scene.crew.held_ids() == {task.id}
    scene.say(child, ["done", row(task)])
    assert ids(scene.reported) == [task.id]


def test_an_outcome_of_a_task_it_never_had_is_ignored(scene: Scene) -> None:
    child = scene.add_child()
    (task,) = scene.give()
    scene.say(child, ["done", row(claimed())])
    assert (scene.reported, scene.crew.finished) == ([], 0)
    assert scene.crew.held_ids() == {task.id}


def test_what_a_child_returns_is_sent_again_before_the_others(scene: Scene) -> None:
    scene.dispatcher.learn(claimed().name, False, 0.001)
    child = scene.add_child()
    tasks = scene.give(3)
    scene.dispatcher.take(later := [claimed()], now=0)
    scene.say(child, ["returned", ids(tasks[1:])])
    assert scene.crew.held_ids() == {tasks[0].id}
    assert scene.dispatcher.take_all() == [*tasks[1:], *later]


def test_a_child_that_cannot_start_says_why(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    scene.say(scene.add_child(), ["broken", "Traceback ...\nImportError: x"])
    assert "event=child_cannot_start" in caplog.text
    assert "ImportError: x" in caplog.text


def test_what_did_not_fit_follows_as_soon_as_a_child_is_heard(scene: Scene) -> None:
    child = scene.add_child(threads=50)
    tasks = scene.give(50, args="x" * 20_000)
    sent: list[str] = []
    while len(sent) < len(tasks):
        for _, batch in scene.others[child.number].receive(socket.MSG_DONTWAIT):
            sent += [each[0] for each in batch]
        scene.say(child, ["returned", []])
    assert sent == ids(tasks)


# -- garbage -----------------------------------------------------------------------


@pytest.mark.parametrize("garbage", GARBAGE, ids=lambda line: repr(line[:20]))
def test_garbage_costs_only_the_child_that_sent_it(
    scene: Scene, killed: list[int], garbage: bytes
) -> None:
    child, other = scene.add_child(), scene.add_child()
    tasks = scene.give(2)
    scene.say(child, garbage)
    assert killed == [NOBODY]
    scene.say(other, ["done", row(tasks[1])])
    assert ids(scene.reported) == [tasks[1].id]


@pytest.mark.parametrize("garbage", GARBAGE, ids=lambda line: repr(line[:20]))
def test_the_last_words_of_a_dead_child_may_be_garbage(
    scene: Scene, garbage: bytes
) -> None:
    child = scene.add_child()
    (task,) = scene.give()
    scene.others[child.number].socket.sendall(garbage)
    scene.others[child.number].close()
    scene.crew._bury(child)
    assert [(one.id, one.verdict) for one in scene.reported] == [
        (task.id, Verdict.CRASHED)
    ]
    assert scene.pool.children == []


@pytest.mark.parametrize(
    "changes",
    [
        {"verdict": "unheard of"},
        {"reason": "no reason"},
        {"error": ["too short"]},
        {"error": [1, 2, 3, 4]},
        {"started": "yesterday"},
        {"finished": None},
        {"return_value": ["no text"]},
        {"delay": "soon"},
        {"log": 7},
        {"metadata": {}},
        {"retention": "long"},
        {"recorded": None},
        {"delay": float("nan")},
        {"delay": float("-inf")},
        {"finished": 10**400},
        {"retention": 1e12},
    ],
    ids=str,
)
def test_an_outcome_of_the_wrong_types_loses_no_task(
    scene: Scene, killed: list[int], changes: dict[str, Any]
) -> None:
    child = scene.add_child()
    (task,) = scene.give()
    scene.say(child, ["done", row(task, **changes)])
    assert (scene.reported, scene.crew.held_ids()) == ([], {task.id})
    assert killed == [NOBODY]


def test_a_child_that_is_not_trusted_gets_nothing_more(scene: Scene) -> None:
    child = scene.add_child(threads=2)
    scene.say(child, b"garbage\n")
    scene.give()
    assert scene.crew.held_ids() == set()


def test_a_child_that_hung_up_gets_nothing_more(
    scene: Scene, killed: list[int]
) -> None:
    child = scene.add_child()
    scene.others[child.number].close()
    scene.hear()
    scene.give()
    assert scene.crew.held_ids() == set()
    assert killed == [NOBODY]


# -- deaths ------------------------------------------------------------------------


def test_what_a_dead_child_had_sent_still_counts(scene: Scene) -> None:
    child = scene.add_child(threads=2)
    done, lost = scene.give(2)
    scene.others[child.number].send(["done", row(done)])
    scene.others[child.number].close()
    scene.crew._bury(child)
    assert [(one.id, one.verdict) for one in scene.reported] == [
        (done.id, Verdict.SUCCESSFUL),
        (lost.id, Verdict.CRASHED),
    ]


def test_what_a_dead_child_had_not_started_is_sent_to_another(scene: Scene) -> None:
    scene.dispatcher.learn(claimed().name, False, 0.001)
    child = scene.add_child()
    tasks = scene.give(3)
    scene.others[child.number].close()
    scene.crew._bury(child)
    assert ids(scene.reported) == [tasks[0].id]
    assert scene.dispatcher.take_all() == tasks[1:]


def test_the_group_of_a_dead_child_is_killed(scene: Scene, killed: list[int]) -> None:
    child = scene.add_child()
    scene.crew._bury(child)
    assert killed == [NOBODY]


def test_a_child_that_left_as_agreed_is_not_a_death(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    child = scene.add_child()
    child.retire()
    scene.others[child.number].close()
    scene.hear()
    scene.crew._bury(child)
    assert "event=child_gone" not in caplog.text


def test_what_python_said_of_a_fatal_signal_is_kept_with_the_attempt(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    child = scene.add_child()
    scene.give()
    child.fault = "Fatal Python error: Segmentation fault\n\x00 in the middle"
    scene.crew._bury(child)
    (reported,) = scene.reported
    assert reported.error is not None
    assert reported.error.traceback.endswith("fault\n\\x00 in the middle")
    assert "Segmentation fault\n" in caplog.text


# -- children that are replaced ------------------------------------------------------


def test_a_child_that_is_short_of_something_goes_when_the_rest_is_done(
    scene: Scene, killed: list[int]
) -> None:
    child = scene.add_child(threads=2)
    one, other = scene.give(2)
    scene.say(child, ["done", row(one)], ["worn out", False])
    assert child.phase is Phase.RETIRING
    assert killed == []
    scene.say(child, ["done", row(other)])
    assert scene.told(child)[-1] == ["stop"]


def test_a_child_with_closed_descriptors_is_killed_and_its_neighbours_spared(
    scene: Scene, killed: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "django_jobs")
    child = scene.add_child(threads=2)
    one, _ = scene.give(2)
    scene.say(child, ["done", row(one)], ["worn out", True])
    assert killed == [NOBODY]
    scene.crew._bury(child)
    assert [each.verdict for each in scene.reported] == [
        Verdict.SUCCESSFUL,
        Verdict.INTERRUPTED,
    ]
    assert 'reason="a task closed descriptors' in caplog.text


def test_the_last_words_of_a_dead_child_kill_nobody(
    scene: Scene, killed: list[int]
) -> None:
    child = scene.add_child()
    scene.others[child.number].send(["worn out", True])
    scene.crew._bury(child)
    assert killed == [NOBODY]  # its group, once


@pytest.mark.parametrize(
    ("is_worn_out", "is_retired", "is_swept"),
    [(False, True, False), (True, True, True), (False, False, True)],
)
def test_what_a_child_left_behind_is_swept_unless_it_left_as_agreed(
    scene: Scene, is_worn_out: bool, is_retired: bool, is_swept: bool
) -> None:
    died: list[int] = []
    scene.pool.orphans.died = died.append  # type: ignore[method-assign]
    child = scene.add_child()
    child.is_worn_out = is_worn_out
    if is_retired:
        child.retire()
    scene.crew._bury(child)
    assert died == [child.number] * is_swept


# -- limits ------------------------------------------------------------------------


def test_a_task_over_its_limit_costs_its_process(
    scene: Scene, killed: list[int]
) -> None:
    child = scene.add_child()
    (task,) = scene.give(time_limit=5.0)
    scene.crew.check(now=4.9)
    assert (killed, child.is_ready) == ([], True)
    scene.crew.check(now=5.0)
    assert (killed, child.killed_for) == ([NOBODY], ("time limit", task.id))


def test_an_interrupted_task_that_stays_costs_its_process(scene: Scene) -> None:
    child = scene.add_child(threads=2)
    (task, other) = scene.give(2, time_limit=1e12)
    scene.crew.interrupt({task.id}, grace=0.0)
    assert scene.told(child)[-1] == ["interrupt", task.id, True]
    scene.crew.check(now=float("inf"))
    assert child.killed_for == ("interrupted", task.id)
    assert other.id in scene.crew.held_ids()


def test_an_interruption_is_asked_for_once(scene: Scene) -> None:
    child = scene.add_child()
    (task,) = scene.give()
    scene.told(child)
    for _ in range(3):
        scene.crew.interrupt(None, grace=5.0)
    assert scene.told(child) == [["interrupt", task.id, False]]


def test_what_waits_is_not_interrupted(scene: Scene) -> None:
    scene.dispatcher.learn(claimed().name, False, 0.001)
    child = scene.add_child()
    running, _ = scene.give(2)
    scene.told(child)
    scene.crew.interrupt(None, grace=5.0)
    assert scene.told(child) == [["interrupt", running.id, False]]


# -- recycling ---------------------------------------------------------------------


@pytest.fixture
def scene_with() -> Iterator[Callable[..., Scene]]:
    made: list[Scene] = []

    def make(**options: Any) -> Scene:
        made.append(Scene(**options))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_a_child_leaves_after_its_last_task(scene_with: Callable[..., Scene]) -> None:
    scene = scene_with(recycle_after=2)
    child = scene.add_child(recycle_after=2)
    for _ in range(2):
        (task,) = scene.give()
        scene.say(child, ["done", row(task)])
    assert child.phase is Phase.RETIRING
    assert scene.told(child)[-1] == ["stop"]


def test_a_large_child_leaves_when_the_rest_is_done(
    scene_with: Callable[..., Scene],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "django_jobs")
    monkeypatch.setattr(processes, "memory_of", {NOBODY: 3 << 20}.get)
    scene = scene_with(max_memory=2 << 20)
    child = scene.add_child(threads=2)
    first, second = scene.give(2)
    scene.say(child, ["done", row(first)])
    assert ["stop"] not in scene.told(child)
    scene.say(child, ["done", row(second)])
    assert scene.told(child) == [["stop"]]
    assert caplog.messages == [
        f"event=child_recycled pid={NOBODY} reason=memory memory_mb=3 limit_mb=2"
    ]


# -- losing the lease --------------------------------------------------------------


def test_abandoned_tasks_are_settled_for_the_identity_that_had_them(
    scene: Scene, killed: list[int]
) -> None:
    child = scene.add_child()
    child.worker_id = "former"
    scene.crew.start_missing("former")
    scene.dispatcher.learn(SHORT, False, 0.001)
    done, running, waiting = scene.give(3)
    scene.crew.abandon()
    assert (killed, scene.reported) == ([NOBODY], [])
    scene.crew.start_missing("me anew")
    scene.say(child, ["done", row(done)])
    scene.crew._bury(child)
    assert [(one.id, one.verdict) for one in scene.reported] == [
        (done.id, Verdict.SUCCESSFUL),
        (waiting.id, Verdict.RELEASED),
        (running.id, Verdict.CRASHED),
    ]
    assert scene.reported_as == ["former"] * 3
    assert (scene.crew.held_ids(), len(scene.dispatcher)) == (set(), 0)


def test_what_a_child_returns_late_is_not_for_the_new_identity(scene: Scene) -> None:
    child = scene.add_child()
    child.worker_id = "former"
    scene.dispatcher.learn(SHORT, False, 0.001)
    _, waiting = scene.give(2)
    scene.crew.abandon()
    scene.say(child, ["returned", [waiting.id]])
    assert [(one.id, one.verdict) for one in scene.reported] == [
        (waiting.id, Verdict.RELEASED)
    ]
    assert len(scene.dispatcher) == 0


def test_the_log_names_the_child_that_is_gone(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "django_jobs")
    child = scene.add_child()
    child.kill("time limit", "a task")
    scene.crew._bury(child)
    scene.crew._bury(scene.add_child())
    gone = f"event=child_gone pid={NOBODY} code=-9"
    assert caplog.messages == [f'{gone} killed_for="time limit"', gone]


# -- the line of an attempt that its child did not survive -------------------------

LINES = [
    ("died", {}, "crashed", "WorkerLost", logging.WARNING),
    ("died", {"crashes": 2}, "failed", "WorkerLost", logging.ERROR),
    ("over its limit", {}, "retry", "TimeLimitExceeded", logging.WARNING),
    ("over its limit", {"attempt": 3}, "failed", "TimeLimitExceeded", logging.ERROR),
    ("neighbour", {}, "interrupted", "TaskInterrupted", logging.WARNING),
    ("interrupted", {}, "interrupted", "TaskInterrupted", logging.WARNING),
    ("revoked", {}, "revoked", "", logging.WARNING),
    ("revoked and died", {"crashes": 2}, "revoked", "WorkerLost", logging.WARNING),
]


@pytest.mark.parametrize(("how", "changes", "verdict", "error", "level"), LINES)
def test_the_parent_says_what_an_attempt_came_to_that_ended_with_its_child(
    how: str,
    changes: dict[str, int],
    verdict: str,
    error: str,
    level: int,
    scene: Scene,
    caplog: pytest.LogCaptureFixture,
) -> None:
    child = scene.add_child()
    child.worker_id = "the worker"
    scene.crew.start_missing("the worker")
    (task,) = scene.give(time_limit=5.0, queue_name="mail", **changes)
    end(scene, child, how, task.id)
    (record,) = [one for one in caplog.records if one.name == "django_jobs.task"]
    fields = vars(record)
    assert (fields["event"], record.levelno) == ("task_finished", level)
    assert (fields["task"], fields["task_id"]) == (task.name, task.id)
    assert (fields["attempt"], fields["verdict"]) == (task.attempt, verdict)
    assert fields.get("error", "").rpartition(".")[2] == error
    assert (fields["queue"], fields["worker"]) == ("mail", "the worker")
    assert fields["duration_ms"] > 0


def end(scene: Scene, child: FakeChild, how: str, task_id: str) -> None:
    """Have a child end in the way told; it runs one task."""
    if how.startswith("revoked"):
        scene.crew.interrupt({task_id}, grace=0.0)
    elif how == "interrupted":
        scene.crew.interrupt(None, grace=0.0)
    if how == "neighbour":
        child.kill("time limit", "another task")
    elif "died" not in how:
        scene.crew.check(now=float("inf"))
    scene.crew._bury(child)


def test_an_untouched_task_of_a_dead_child_has_no_line(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    scene.dispatcher.learn(claimed().name, False, 0.001)
    child = scene.add_child()
    running, _ = scene.give(2)
    scene.crew._bury(child)
    lines = [one for one in caplog.records if one.name == "django_jobs.task"]
    assert [vars(line)["task_id"] for line in lines] == [running.id]


# -- counting ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verdict", "finished", "returned"),
    [
        (Verdict.SUCCESSFUL, 1, 0),
        (Verdict.FAILED, 1, 0),
        (Verdict.RETRY, 1, 0),
        (Verdict.SNOOZED, 0, 1),
        (Verdict.INTERRUPTED, 0, 1),
    ],
)
def test_what_is_given_back_is_not_finished(
    scene: Scene, verdict: Verdict, finished: int, returned: int
) -> None:
    child = scene.add_child()
    (task,) = scene.give()
    scene.say(child, ["done", row(task, verdict=verdict)])
    assert (scene.crew.finished, scene.crew.returned) == (finished, returned)
    assert scene.crew.runs == 1


def test_a_revoked_task_that_was_interrupted_is_finished(scene: Scene) -> None:
    child = scene.add_child()
    (task,) = scene.give()
    scene.crew.interrupt({task.id}, grace=5.0)
    scene.say(child, ["done", row(task, verdict=Verdict.INTERRUPTED)])
    assert (scene.crew.finished, scene.crew.returned) == (1, 0)


@pytest.mark.parametrize(
    ("how", "counts"), [("died", (1, 0)), ("interrupted", (0, 1)), ("revoked", (1, 0))]
)
def test_runs_that_end_with_their_child_are_counted(
    scene: Scene, how: str, counts: tuple[int, int]
) -> None:
    child = scene.add_child()
    (task,) = scene.give()
    end(scene, child, how, task.id)
    assert (scene.crew.finished, scene.crew.returned) == counts
