"""The tasks of an asynchronous run that wait for a place on an actor, and how they are given out in batches."""

import bisect
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from fedbench.engine.messages import TaskOrder

BATCHES_PER_ACTOR = 2
"""Batches that an actor has been given at a time: one that it computes, and one that it goes on with at once."""

BATCH_BYTES = 8 << 20
"""Bytes of parameters that the tasks of a batch have together at most, where it has several."""

CALM_BATCHES = 30
"""Batches without a waiting actor after which a batch may have one task more."""

BATCH_SECONDS = 0.5
"""Seconds that a batch may be expected to take, where it has several tasks: longer ones gain nothing from it."""


@dataclass(frozen=True, order=True)
class WaitingTask:
    """A task that waits for a place. Tasks are ordered by when they are due, and by number where that is the same.

    Attributes:
        due: time of the clock at which its update is needed; infinity where that is not known.
        number: number of the task.
        order: the task.
        versions: for each part, the version of the parameters that it starts from.
    """

    due: float
    number: int
    order: TaskOrder = field(compare=False)
    versions: tuple[int, ...] = field(compare=False)


class TaskQueue:
    """Deals waiting tasks out to actors, those that are due first before the others.

    An update is applied when all updates that are due before it have been, and only then a new task starts from the
    parameters. So a task that is due soon must not wait behind those that are due later: most tasks are held back
    here, and an actor has two batches at most.

    A batch costs two calls, however many tasks it has, and large batches make the order coarser, until every update
    that has been computed is due after one that has not, and actors wait. No formula for the best size holds for all
    distributions of service times. So batches may have one task more after each 30 without a waiting actor, and one
    task fewer when an actor finds no task; they also leave tasks for the other batches that actors have room for. They
    have one task each until it is known how long a task takes.

    Memory: with A actors, K tasks in flight and a model of M bytes, at most 2 A batches of parameters are on their way,
    each of max(M, 8 MiB) at most, and at most K batches of updates, each of that size, wait for their turn.
    """

    def __init__(self, actors: int, task_bytes: int, *, keep_home: bool) -> None:
        """Args:
        actors: number of actors.
        task_bytes: bytes of parameters that a task may be sent, and of the update that it may send.
        keep_home: whether a client's task should go to the actor that holds its state.
        """
        self._most = max(1, BATCH_BYTES // max(1, task_bytes))
        self._keep_home = keep_home
        self._waiting: list[WaitingTask] = []
        self._given: list[list[int]] = [[] for _ in range(actors)]
        self._task_seconds = math.inf
        self._limit, self._calm = 2, 0

    def __len__(self) -> int:
        """Number of tasks that wait."""
        return len(self._waiting)

    def add(self, task: WaitingTask) -> None:
        """Have a task wait."""
        bisect.insort(self._waiting, task)

    def next_batch(self, home: Mapping[int, int]) -> tuple[int, tuple[WaitingTask, ...]] | None:
        """Take the tasks that are to be given out next, if an actor has room for them.

        Args:
            home: {client: actor that had its task before}.

        Returns:
            The actor, which has fewer batches and tasks than the others, and its tasks in the order in which they are
            due. None where no task waits or every actor has its batches.
        """
        actors = len(self._given)
        load = [(len(batches), sum(batches)) for batches in self._given]
        least = min(load)
        if not self._waiting and not least[0]:
            self._limit, self._calm = max(1, self._limit - 1), 0
        if not self._waiting or least[0] == BATCHES_PER_ACTOR:
            return None
        client = self._waiting[0].order.client
        preferred = home.get(client, client % actors)
        actor = preferred if load[preferred] == least else load.index(least)
        size = self._batch_size()
        first, *soon = self._waiting[: size * actors]
        if self._keep_home:
            soon.sort(key=lambda task: home.get(task.order.client, actor) != actor)  # stable: else as they are due
        batch = sorted([first, *soon[: size - 1]])
        for task in batch:
            self._waiting.remove(task)
        self._given[actor].append(len(batch))
        return actor, tuple(batch)

    def _batch_size(self) -> int:
        """Tasks of the next batch; 1 where it is not known when they are due, so that each is seen when it ends."""
        if math.isinf(self._waiting[0].due):
            return 1
        known = sum(not math.isinf(task.due) for task in self._waiting)
        room = sum(BATCHES_PER_ACTOR - len(batches) for batches in self._given)
        short_enough = int(BATCH_SECONDS / self._task_seconds)
        return max(1, min(self._limit, self._most, short_enough, math.ceil(known / room)))

    def finished(self, actor: int, seconds: float) -> None:
        """Note that an actor has answered for the earliest of its batches, which took it so many seconds."""
        tasks = self._given[actor].pop(0)
        self._task_seconds = max(seconds / tasks, 1e-6)
        self._calm += 1
        if self._calm == CALM_BATCHES:
            self._limit, self._calm = self._limit + 1, 0

    def lost(self, actor: int, batches: int) -> None:
        """Note that an actor has lost the latest of its batches, so many of them."""
        del self._given[actor][len(self._given[actor]) - batches :]
