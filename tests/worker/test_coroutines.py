"""The event loop of a child, and how what runs on it is interrupted."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from contextvars import ContextVar
from queue import SimpleQueue
from typing import Any

import pytest

from django_jobs.exceptions import SoftTimeLimitExceeded, TaskInterrupted
from django_jobs.records import ClaimedTask, Outcome
from django_jobs.states import Verdict
from django_jobs.worker.coroutines import Interrupted, Interruptible, Loop, SoftLimit
from tests.worker.parts import PATIENCE, claimed, ids, outcome

told: ContextVar[str] = ContextVar("told", default="nothing")


# -- one coroutine -----------------------------------------------------------------


def interrupted(
    body: Callable[[list[str]], Awaitable[Any]], error: BaseException | None = None
) -> tuple[Any, list[str]]:
    """Throw into a coroutine that waits; return its answer and its notes."""
    notes: list[str] = []

    async def scenario() -> Any:
        interruptible = Interruptible(body(notes))  # type: ignore[arg-type]
        call_soon = asyncio.get_running_loop().call_soon
        # One round for what it starts itself to start.
        call_soon(call_soon, interruptible.throw, error or Interrupted())
        return await interruptible

    return asyncio.run(asyncio.wait_for(scenario(), PATIENCE)), notes


def test_a_coroutine_that_is_left_alone_returns_its_value() -> None:
    async def body() -> int:
        await asyncio.sleep(0)
        return 7

    async def scenario() -> int:
        return await Interruptible(body())  # type: ignore[no-any-return]

    assert asyncio.run(scenario()) == 7


def test_the_exception_that_was_meant_arrives_inside() -> None:
    async def body(notes: list[str]) -> str:
        try:
            await asyncio.sleep(PATIENCE)
        except SoftTimeLimitExceeded as error:
            return f"tidied up: {error}"
        return "left alone"

    answer, _ = interrupted(body, SoftLimit("too long"))
    assert answer == "tidied up: too long"


def test_what_is_not_caught_comes_out_and_finally_blocks_run() -> None:
    notes: list[str] = []

    async def body(given: list[str]) -> None:
        try:
            await asyncio.sleep(PATIENCE)
        finally:
            await asyncio.sleep(0)
            notes.append("finally")

    with pytest.raises(TaskInterrupted):
        interrupted(body)
    assert notes == ["finally"]


def test_it_goes_on_after_it_caught_the_interruption() -> None:
    async def body(notes: list[str]) -> str:
        try:
            await asyncio.sleep(PATIENCE)
        except TaskInterrupted:
            notes.append("caught")
        await asyncio.sleep(0)
        async with asyncio.timeout(PATIENCE):
            await asyncio.sleep(0)
        return "went on"

    assert interrupted(body) == ("went on", ["caught"])


def test_the_task_of_the_loop_is_not_cancelled_for_good() -> None:
    async def body(notes: list[str]) -> int:
        with suppress(TaskInterrupted):
            await asyncio.sleep(PATIENCE)
        task = asyncio.current_task()
        assert task is not None
        return task.cancelling()

    assert interrupted(body)[0] == 0


def test_only_the_first_of_several_interruptions_counts() -> None:
    async def scenario() -> list[str]:
        caught = []

        async def body() -> None:
            for _ in range(2):
                try:
                    await asyncio.sleep(0.01)
                except (TaskInterrupted, SoftTimeLimitExceeded) as error:
                    caught.append(type(error).__name__)

        interruptible = Interruptible(body())
        for error in (Interrupted(), SoftLimit()):
            asyncio.get_running_loop().call_soon(interruptible.throw, error)
        await interruptible
        return caught

    assert asyncio.run(scenario()) == ["TaskInterrupted"]


def test_a_timeout_inside_still_works() -> None:
    async def body() -> str:
        try:
            async with asyncio.timeout(0.001):
                await asyncio.sleep(PATIENCE)
        except TimeoutError:
            return "timed out"
        return "slept"

    async def scenario() -> Any:
        return await Interruptible(body())

    assert asyncio.run(scenario()) == "timed out"


def test_an_interruption_inside_a_timeout_is_no_timeout() -> None:
    async def body(notes: list[str]) -> str:
        try:
            async with asyncio.timeout(PATIENCE):
                await asyncio.sleep(PATIENCE)
        except TaskInterrupted:
            return "interrupted"
        return "slept"

    assert interrupted(body)[0] == "interrupted"


def test_what_is_gathered_is_cancelled() -> None:
    async def body(notes: list[str]) -> None:
        try:
            await asyncio.gather(part(notes), part(notes))
        except TaskInterrupted:
            notes.append("interrupted")
        await asyncio.sleep(0)

    assert sorted(interrupted(body)[1]) == ["cancelled", "cancelled", "interrupted"]


async def part(notes: list[str]) -> None:
    try:
        await asyncio.sleep(PATIENCE)
    except asyncio.CancelledError:
        notes.append("cancelled")
        raise


async def wait_for_the_group(notes: list[str]) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(part(notes))
        group.create_task(part(notes))


async def wait_in_the_group(notes: list[str]) -> None:
    async with asyncio.TaskGroup() as outer, asyncio.TaskGroup() as inner:
        outer.create_task(part(notes))
        inner.create_task(part(notes))
        await asyncio.sleep(PATIENCE)


@pytest.mark.parametrize("body", [wait_for_the_group, wait_in_the_group])
def test_no_part_of_a_task_group_outlives_the_interruption(
    body: Callable[[list[str]], Awaitable[None]],
) -> None:
    notes: list[str] = []

    async def noting(given: list[str]) -> None:
        try:
            await body(notes)
        finally:
            notes.append("over")

    with pytest.raises(TaskInterrupted):
        interrupted(noting)
    assert notes == ["cancelled", "cancelled", "over"]


def test_other_errors_of_a_task_group_come_out_in_the_group() -> None:
    async def failing() -> None:
        try:
            await asyncio.sleep(PATIENCE)
        except asyncio.CancelledError:
            raise KeyError from None

    async def body(notes: list[str]) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(failing())
            await asyncio.sleep(PATIENCE)

    with pytest.raises(BaseExceptionGroup) as caught:
        interrupted(body)
    kinds = {type(each).__name__ for each in caught.value.exceptions}
    assert "KeyError" in kinds


@pytest.mark.parametrize("kind", [SoftLimit, Interrupted])
def test_an_interruption_has_the_name_of_its_base(kind: type[BaseException]) -> None:
    assert f"{kind.__module__}.{kind.__qualname__}" in (
        "django_jobs.exceptions.SoftTimeLimitExceeded",
        "django_jobs.exceptions.TaskInterrupted",
    )


def test_a_cancellation_that_is_not_ours_passes_through() -> None:
    async def scenario() -> str:
        async def body() -> str:
            try:
                await asyncio.sleep(PATIENCE)
            except asyncio.CancelledError:
                return "cancelled"
            return "slept"

        task = asyncio.ensure_future(Interruptible(body()))
        await asyncio.sleep(0)
        task.cancel()
        return await task  # type: ignore[no-any-return]

    assert asyncio.run(scenario()) == "cancelled"


@pytest.mark.parametrize("fails", [False, True])
def test_a_coroutine_that_is_over_is_not_interrupted(fails: bool) -> None:
    async def body() -> None:
        await asyncio.sleep(0)
        if fails:
            raise KeyError

    async def scenario() -> str:
        interruptible = Interruptible(body())
        with suppress(KeyError):
            await interruptible
        interruptible.throw(Interrupted())
        await asyncio.sleep(0)
        return "went on"

    assert asyncio.run(scenario()) == "went on"


# From Python 3.12 on, which sees the threads of pytest.
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("awaits", [True, False])
def test_a_copy_ends_where_its_coroutine_awaits_or_is_over(awaits: bool) -> None:
    async def body() -> int:
        copy = os.fork()
        if copy:
            return copy
        if awaits:
            await asyncio.sleep(0)
        return 0

    async def scenario() -> int:
        if (copy := await Interruptible(body())) == 0:
            os._exit(7)
        return os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1])

    assert asyncio.run(scenario()) == 0


# -- the loop ----------------------------------------------------------------------


class FakeExecutor:
    """Awaits what the test says for a task, in place of the task's function."""

    def __init__(self) -> None:
        self.bodies: dict[str, Callable[[], Awaitable[Any]]] = {}
        self.limits: dict[str, float] = {}

    async def run_async(self, task: ClaimedTask, watched: Any) -> Outcome:
        call = self.bodies[task.id]()
        try:
            value = await watched(task.id, self.limits.get(task.id), call)
        except BaseException as error:
            value = type(error).__name__
            return outcome(task, verdict=Verdict.FAILED, return_value=value)
        return outcome(task, return_value=value)


class Scene:
    """A loop with two slots, and the outcomes that it reported."""

    def __init__(self) -> None:
        self.executor = FakeExecutor()
        self.outcomes: SimpleQueue[Outcome] = SimpleQueue()
        self.loop = Loop(self.executor, self.outcomes.put, slots=2)  # type: ignore[arg-type]
        self.gate: asyncio.Event | None = None

    def add(
        self, *bodies: Callable[[], Awaitable[Any]], limit: float | None = None
    ) -> list[ClaimedTask]:
        tasks = [claimed() for _ in bodies]
        for task, body in zip(tasks, bodies, strict=True):
            self.executor.bodies[task.id] = body
            if limit is not None:
                self.executor.limits[task.id] = limit
        self.loop.add(tasks)
        return tasks

    def next(self) -> tuple[str, Any]:
        """Return task and value of the next outcome."""
        one = self.outcomes.get(timeout=PATIENCE)
        return one.id, one.return_value

    def give_back(self) -> list[str]:
        answers: SimpleQueue[list[str]] = SimpleQueue()
        self.loop.give_back(answers.put)
        return answers.get(timeout=PATIENCE)

    def close(self) -> None:
        loop = self.loop._loop
        if loop is None:
            return
        has_stopped = threading.Event()

        def stop() -> None:
            for task in asyncio.all_tasks(loop):
                task.cancel()
            loop.call_soon(loop.call_soon, end)

        def end() -> None:
            self.loop._waiting.clear()
            loop.stop()
            has_stopped.set()

        loop.call_soon_threadsafe(stop)
        assert has_stopped.wait(PATIENCE)
        for thread in threading.enumerate():
            if thread.name == "event-loop":
                thread.join(PATIENCE)
        loop.close()


@pytest.fixture
def scene() -> Iterator[Scene]:
    made = Scene()
    yield made
    made.close()


async def forever() -> None:
    await asyncio.Event().wait()


async def quick() -> str:
    await asyncio.sleep(0)
    return "quick"


def test_outcomes_are_reported_as_they_come(scene: Scene) -> None:
    (_, task) = scene.add(forever, quick)
    assert scene.next() == (task.id, "quick")


def test_no_more_run_than_there_are_slots(scene: Scene) -> None:
    running, most = [0], [0]

    async def body() -> None:
        running[0] += 1
        most[0] = max(most[0], running[0])
        for _ in range(5):
            await asyncio.sleep(0)
        running[0] -= 1

    tasks = scene.add(*[body] * 7)
    assert sorted(scene.next()[0] for _ in tasks) == ids(tasks)
    assert most == [2]


def test_what_has_not_started_is_given_back(scene: Scene) -> None:
    tasks = scene.add(forever, forever, quick, quick)
    assert scene.give_back() == ids(tasks[2:])
    assert scene.give_back() == []
    scene.loop.interrupt(tasks[0].id)
    assert scene.next() == (tasks[0].id, "TaskInterrupted")


def test_a_loop_without_tasks_has_nothing_to_give_back() -> None:
    answers: list[list[str]] = []
    loop = Loop(FakeExecutor(), print, slots=2)  # type: ignore[arg-type]
    loop.give_back(answers.append)
    loop.interrupt("nothing")
    assert answers == []


def test_the_next_starts_when_one_is_interrupted(scene: Scene) -> None:
    first, _, third = scene.add(forever, forever, quick)
    scene.loop.interrupt(first.id)
    assert [scene.next(), scene.next()] == [
        (first.id, "TaskInterrupted"),
        (third.id, "quick"),
    ]


def test_a_task_may_be_interrupted_before_its_first_step(scene: Scene) -> None:
    scene.add(quick)
    scene.next()
    task = claimed()
    scene.executor.bodies[task.id] = forever

    def add_and_interrupt() -> None:
        scene.loop._add([task])
        scene.loop._interrupt(task.id)

    assert scene.loop._loop is not None
    scene.loop._loop.call_soon_threadsafe(add_and_interrupt)
    assert scene.next() == (task.id, "TaskInterrupted")
    assert scene.loop._interrupted == set()


def test_a_soft_limit_is_raised_inside(scene: Scene) -> None:
    (task,) = scene.add(forever, limit=0.01)
    assert scene.next() == (task.id, "SoftTimeLimitExceeded")


def test_a_task_within_its_limit_is_left_alone(scene: Scene) -> None:
    scene.add(quick, limit=PATIENCE)
    assert scene.next()[1] == "quick"


def test_what_one_task_sets_in_its_context_does_not_reach_the_next(
    scene: Scene,
) -> None:
    async def body() -> str:
        before = told.get()
        told.set("something")
        await asyncio.sleep(0)
        return before

    scene.add(*[body] * 6)
    assert {scene.next()[1] for _ in range(6)} == {"nothing"}


def test_a_task_that_ends_the_loop_holds_up_no_other(scene: Scene) -> None:
    async def leave() -> None:
        sys.exit(3)

    async def body() -> str:
        task = asyncio.create_task(leave())
        await asyncio.wait([task])
        return type(task.exception()).__name__

    scene.add(body)
    assert scene.next()[1] == "SystemExit"
    scene.add(quick)
    assert scene.next()[1] == "quick"


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_copy_ends_where_a_part_of_its_coroutine_awaits(scene: Scene) -> None:
    async def part() -> int:
        never = asyncio.get_running_loop().create_future()
        copy = os.fork()
        if copy == 0:
            signal.alarm(5)
            scene.loop.end_copy_soon()
            await never
        return copy

    async def body() -> int:
        return await asyncio.create_task(part())

    scene.add(body)
    copy = scene.next()[1]
    assert os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1]) == 0
