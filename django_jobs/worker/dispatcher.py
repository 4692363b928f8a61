"""Who gets what: how many tasks to claim, and which child runs them.

Short tasks are sent ahead, so that a child never waits for the database; behind a long
one nothing waits. What is short is learnt from the run times seen so far (a moving
average per task name).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

from django_jobs.definitions import all_definitions, find_definition
from django_jobs.failpoints import reach
from django_jobs.records import ClaimedTask
from django_jobs.worker.lanes import Assigned, Lane
from django_jobs.worker.pool import Child, Pool

#: Work to send ahead per lane, in seconds and in tasks.
HORIZON = 0.1
MOST_WAITING = 150
#: Tasks per claim.
MOST_CLAIMED = 200
#: A task that ran longer has nothing waiting behind it any more.
LONG = 0.05
#: A task that no child took for so long goes back to the database.
PATIENCE = 0.5
#: After a task went back, claim for coroutines no sooner than after so many seconds.
COROUTINE_PAUSE = 5.0
#: Weight of the newest run in the moving average.
NEWEST = 0.2


class Dispatcher:
    """The tasks that were claimed and not sent yet, and what is known of run times."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        #: Per kind (is it a coroutine?) the tasks to send, with the time they came.
        self.buffers: dict[bool, deque[tuple[float, ClaimedTask]]] = {
            False: deque(),
            True: deque(),
        }
        self._knows_coroutines = any(each.is_async for each in all_definitions())
        self._seconds: dict[str, float] = {}
        self._average: dict[bool, float] = {}
        #: How many coroutine tasks to claim for: nobody knows of what kind the next
        #: tasks in the queue are, so this grows while they come and are taken.
        self._coroutine_window = 1
        #: Not before this time, since sync tasks came instead and found no place.
        self._coroutines_from = 0.0

    # -- learning ------------------------------------------------------------------

    def learn(self, name: str, is_async: bool, seconds: float) -> None:
        """Note how long a run took."""
        old = self._seconds.get(name, seconds)
        self._seconds[name] = old + NEWEST * (seconds - old)
        average = self._average.get(is_async, seconds)
        self._average[is_async] = average + NEWEST * (seconds - average)

    # -- claiming ------------------------------------------------------------------

    def demand(self, now: float) -> int:
        """Return how many tasks to have on their way, those under way included."""
        wanted = max(0, self._wanted(False, now))
        return wanted + max(0, self._coroutines_wanted(now))

    def _coroutines_wanted(self, now: float) -> int:
        if self.buffers[False] or now < self._coroutines_from:
            return 0
        return min(self._wanted(True, now), self._coroutine_window)

    def _wanted(self, is_async: bool, now: float) -> int:
        if is_async and not self._knows_coroutines:
            return 0
        rooms = (
            min(child.may_take, self._room(child.lanes[is_async], is_async, now))
            for child in self.pool
            if child.is_ready
        )
        return sum(rooms) - len(self.buffers[is_async])

    def _room(self, lane: Lane, is_async: bool, now: float) -> int:
        average = self._average.get(is_async)
        # What could not be sent would only be claimed and given back, again and again.
        if average is None or not self._takes_ahead(lane, now):
            return lane.free
        ahead = int((HORIZON * lane.slots - lane.estimate) / max(average, 1e-6))
        ahead = min(ahead, MOST_WAITING + lane.slots - len(lane))
        return max(lane.free, ahead)

    def take(self, tasks: Iterable[ClaimedTask], now: float) -> None:
        """Accept claimed tasks, in claim order."""
        coroutines = 0
        for task in tasks:
            is_async = _is_async(task)
            coroutines += is_async
            self.buffers[is_async].append((now, task))
        if coroutines:
            self._coroutines_from = 0.0
            self._coroutine_window = max(self._coroutine_window, 2 * coroutines)
        else:
            self._coroutine_window = max(1, self._coroutine_window // 2)

    def take_back(self, tasks: Iterable[ClaimedTask], now: float) -> None:
        """Accept tasks that a child did not start; they go first again."""
        for task in reversed(list(tasks)):
            self.buffers[_is_async(task)].appendleft((now, task))

    def __len__(self) -> int:
        return sum(len(buffer) for buffer in self.buffers.values())

    # -- sending -------------------------------------------------------------------

    def dispatch(self, now: float) -> None:
        """Send what the children can take."""
        for is_async, buffer in self.buffers.items():
            if not buffer:
                continue
            sendings: dict[Child, list[ClaimedTask]] = {}
            for child in self._places(is_async, now, len(buffer)):
                task = buffer.popleft()[1]
                child.lanes[is_async].add(self._assign(task), now)
                sendings.setdefault(child, []).append(task)
            for child, tasks in sendings.items():
                reach("dispatch.before_send")
                child.channel.post(["run", tasks])
                reach("dispatch.after_send")

    def _places(self, is_async: bool, now: float, limit: int) -> Iterator[Child]:
        """Yield a child per task that can be sent: free slots first, then ahead."""
        children = sorted(
            (child for child in self.pool if child.is_ready), key=lambda one: one.load
        )
        left = limit
        for child in children:
            for _ in range(min(left, child.lanes[is_async].free, child.may_take)):
                left -= 1
                yield child
        for child in children:
            lane = child.lanes[is_async]
            while left and child.may_take and self._takes_ahead(lane, now):
                left -= 1
                yield child

    @staticmethod
    def _takes_ahead(lane: Lane, now: float) -> bool:
        return (
            lane.estimate < HORIZON * lane.slots
            and len(lane.waiting) < MOST_WAITING
            and lane.longest_running(now) < LONG
        )

    def _assign(self, task: ClaimedTask) -> Assigned:
        # A task never seen before may be long: nothing is sent behind it.
        return Assigned(task, time_limit_of(task), self._seconds.get(task.name, 1e9))

    # -- giving back ---------------------------------------------------------------

    def recall(self, now: float) -> None:
        """Ask for what waits behind a task that turned out to be long."""
        for child in self.pool:
            for lane in child.lanes.values():
                if lane.waiting and lane.longest_running(now) > LONG:
                    child.recall()

    def impatient(self, now: float) -> list[ClaimedTask]:
        """Take out the tasks that nobody here can run soon."""
        given_up: list[ClaimedTask] = []
        for buffer in self.buffers.values():
            while buffer and now - buffer[0][0] > PATIENCE:
                given_up.append(buffer.popleft()[1])
        if given_up:
            self._coroutines_from = now + COROUTINE_PAUSE
        return given_up

    def take_all(self) -> list[ClaimedTask]:
        """Empty the buffer."""
        tasks = [task for buffer in self.buffers.values() for _, task in buffer]
        for buffer in self.buffers.values():
            buffer.clear()
        return tasks


def _is_async(task: ClaimedTask) -> bool:
    definition = find_definition(task.name)
    return definition is not None and definition.is_async


def time_limit_of(task: ClaimedTask) -> float | None:
    """Return the hard limit of a task in seconds: its own, its definition's, ours."""
    if task.time_limit is not None:
        return task.time_limit
    definition = find_definition(task.name)
    return None if definition is None else definition.time_limit
