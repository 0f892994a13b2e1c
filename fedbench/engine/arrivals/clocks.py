"""The clocks that decide when an asynchronous task ends: drawn from the seed, real time, or a recorded run."""

import heapq
import math
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fedbench.checkpoints.state import Tree
from fedbench.config.experiment import ExperimentConfig
from fedbench.engine.messages import TaskOrder
from fedbench.errors import ConfigError, RunError
from fedbench.planning.delays import DelaysSection
from fedbench.planning.worlds import ClientTimes
from fedbench.randomness import generator

NEVER = math.inf
"""A time in seconds that no clock reaches."""


@dataclass(frozen=True, order=True)
class TaskEnd:
    """The end of a task.

    Attributes:
        seconds: time of the clock.
        number: number of the task.
        lost: whether its client has dropped out: the slot becomes free, and no update arrives.
    """

    seconds: float
    number: int
    lost: bool = False


class Clock(ABC):
    """Decides which task ends next.

    Attributes:
        name: the value of `delays.clock` that it stands for.
    """

    name: str

    @abstractmethod
    def dispatched(
        self, order: TaskOrder, now: float, share: float, nbytes: int, times: ClientTimes | None = None
    ) -> float | None:
        """Note that a task begins.

        Args:
            order: the task.
            now: time of the clock, in seconds.
            share: its FLOPs, as a fraction of those of a full update by a client of mean size.
            nbytes: bytes that it sends, down and up together.
            times: how long it takes on its client's device; None: as long as the clock has it.

        Returns:
            The time of the clock at which its update will arrive, `NEVER` where that is not known beforehand. None
            where its client drops out, so that it need not be computed.

        Raises:
            ConfigError: a replayed record has another client in this slot.
        """

    @abstractmethod
    def next(self, until: float) -> TaskEnd | None:
        """The next task to end, or None where no task ends before `until` seconds of the clock.

        Raises:
            RunError: a replayed record ends before the run does.
            ConfigError: a replayed record does not belong to this configuration.
        """

    @abstractmethod
    def state(self) -> Tree:
        """Everything that the clock keeps, for a checkpoint."""

    @abstractmethod
    def restore(self, state: Tree) -> None:
        """Continue from a state that `state` returned."""


class VirtualClock(Clock):
    """Draws each service time from (seed, client, number of the client's tasks before), or takes it from a device.

    Of tasks that end at the same time, the one that was dispatched earlier comes first.
    """

    name = "virtual"

    def __init__(self, delays: DelaysSection, seed: int, clients: int) -> None:
        """Args:
        delays: distribution, slow clients, bandwidth and drop-outs.
        seed: seed of the experiment.
        clients: size of the population.
        """
        self._delays = delays
        self._seed = seed
        self._slow = delays.slow_clients(seed, clients)
        self._heap: list[TaskEnd] = []

    def dispatched(
        self, order: TaskOrder, now: float, share: float, nbytes: int, times: ClientTimes | None = None
    ) -> float | None:
        delays = self._delays
        rng = generator(self._seed, "service time", order.client, order.visit)
        if times is None:
            seconds = delays.mean_seconds * delays.distribution.draw(rng) * share
            if order.client in self._slow:
                seconds *= delays.slow_factor
            if delays.bandwidth is not None:
                seconds += nbytes / delays.bandwidth
        else:
            seconds = times.end - now
        lost = bool(rng.random() < delays.drop_rate)
        if lost:
            seconds += delays.away_seconds
        lost = lost or (times is not None and not times.done)
        heapq.heappush(self._heap, TaskEnd(now + seconds, order.number, lost))
        return None if lost else now + seconds

    def next(self, until: float) -> TaskEnd | None:
        if not self._heap or self._heap[0].seconds > until:
            return None
        return heapq.heappop(self._heap)

    def state(self) -> Tree:
        return {"heap": self._heap}

    def restore(self, state: Tree) -> None:
        self._heap = state["heap"]


class WallClock(Clock):
    """Real time: a task ends when its result is there."""

    name = "wall"

    def __init__(self, ready: Callable[[float], int | None]) -> None:
        """Args:
        ready: `TaskExecutor.ready`, which waits for a finished task and returns its number.
        """
        self._ready = ready
        self._began = time.perf_counter()

    def dispatched(
        self, order: TaskOrder, now: float, share: float, nbytes: int, times: ClientTimes | None = None
    ) -> float | None:
        return NEVER

    def next(self, until: float) -> TaskEnd | None:
        number = self._ready(max(0.0, until - self._now()))
        return None if number is None else TaskEnd(min(self._now(), until), number)

    def state(self) -> Tree:
        return {"seconds": self._now()}

    def restore(self, state: Tree) -> None:
        self._began = time.perf_counter() - state["seconds"]

    def _now(self) -> float:
        return time.perf_counter() - self._began


class ReplayClock(Clock):
    """Repeats the order and the times of a recorded run."""

    def __init__(self, path: Path, name: str) -> None:
        """Args:
        path: `events.parquet` of the recorded run.
        name: name of its clock.

        Raises:
            DataError: the file is missing, damaged or not a record of arrivals.
        """
        from fedbench.records.reader import load_events

        self.name = name
        self._path = path
        rows = load_events(path).select(["worker", "client", "arrived_seconds", "status"]).to_pylist()
        self._rows = deque(rows)
        self._of_worker: dict[int, deque[tuple[int, float | None]]] = {}
        for row in rows:
            tasks_to_come = self._of_worker.setdefault(row["worker"], deque())
            tasks_to_come.append((row["client"], None if row["status"] == "lost" else row["arrived_seconds"]))
        self._in_flight: dict[int, TaskOrder] = {}

    def dispatched(
        self, order: TaskOrder, now: float, share: float, nbytes: int, times: ClientTimes | None = None
    ) -> float | None:
        self._in_flight[order.worker] = order
        tasks_to_come = self._of_worker.get(order.worker)
        if not tasks_to_come:
            return NEVER  # this task was still in flight when the recorded run ended
        client, arrives = tasks_to_come.popleft()
        if client != order.client:
            raise ConfigError(
                f"delays.replay={self._path}: worker {order.worker} has client {client} there and {order.client} here; "
                "replay it with the configuration of its own run (config.yaml beside it)"
            )
        return arrives

    def next(self, until: float) -> TaskEnd | None:
        if not self._rows and until < NEVER:
            return None
        if not self._rows:
            raise RunError(f"delays.replay={self._path}: ends before the run does; lower rounds, or run it anew")
        if self._rows[0]["arrived_seconds"] > until:
            return None
        row = self._rows.popleft()
        order = self._in_flight.pop(row["worker"], None)
        if order is None:
            raise ConfigError(
                f"delays.replay={self._path}: worker {row['worker']} has an arrival there and no task here"
            )
        return TaskEnd(row["arrived_seconds"], order.number, row["status"] == "lost")

    def state(self) -> Tree:
        return {"rows": len(self._rows), "in_flight": self._in_flight}

    def restore(self, state: Tree) -> None:
        self._in_flight = state["in_flight"]
        while len(self._rows) > state["rows"]:
            self._of_worker[self._rows.popleft()["worker"]].popleft()
        for worker in self._in_flight:
            if self._of_worker.get(worker):
                self._of_worker[worker].popleft()


def make_clock(config: ExperimentConfig, ready: Callable[[float], int | None]) -> "Clock":
    """The clock of an asynchronous run.

    Args:
        config: `delays` says which clock; the virtual one also needs seed and number of clients.
        ready: `TaskExecutor.ready` of the executor that the clock is for.

    Raises:
        DataError: `delays.replay` does not name a record of arrivals.
    """
    delays = config.delays
    if delays.replay is not None:
        return ReplayClock(delays.replay, delays.clock)
    if delays.clock == "wall":
        return WallClock(ready)
    return VirtualClock(delays, config.seed, config.data.clients)
