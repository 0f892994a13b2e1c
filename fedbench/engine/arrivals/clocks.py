"""When which work arrives: by service times drawn from the seed, as it really happens, or as a record says."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fedbench.config.experiment import ExperimentConfig
from fedbench.errors import RunError

if TYPE_CHECKING:
    from fedbench.checkpoints.state import Tree

import heapq
import math
from abc import ABC, abstractmethod
from collections import deque

from fedbench.checkpoints.state import Tree
from fedbench.engine.messages import ArrivalOrder
from fedbench.errors import ConfigError
from fedbench.planning.delays import DelaysSection
from fedbench.randomness import generator

NEVER = math.inf


@dataclass(frozen=True, order=True)
class Due:
    """The end of a work.

    Attributes:
        seconds: of the clock.
        number: of the work.
        lost: its client has dropped out; the slot is free now, nothing arrives.
    """

    seconds: float
    number: int
    lost: bool = False


class Clock(ABC):
    """Says which work ends next. `name` is that of `delays.clock`."""

    name: str

    @abstractmethod
    def dispatched(self, order: ArrivalOrder, now: float, share: float, nbytes: int) -> bool:
        """A work begins.

        Args:
            now: seconds of the clock.
            share: of the FLOPs of a full update by a client of mean size.
            nbytes: sent down and up.

        Returns:
            Whether anything will come of it; False: its client drops out, so it need not be computed.
        """

    @abstractmethod
    def next(self, until: float) -> Due | None:
        """The next end of a work; None where that is after `until` seconds of the clock."""

    @abstractmethod
    def state(self) -> Tree:
        """All that the clock keeps."""

    @abstractmethod
    def restore(self, state: Tree) -> None:
        """Go on from what `state` gave."""


class VirtualClock(Clock):
    """Service times are functions of (seed, client, how many works it has had); ties go to the earlier dispatch."""

    name = "virtual"

    def __init__(self, delays: DelaysSection, seed: int, clients: int) -> None:
        """Args:
        clients: size of the population.
        """
        self._delays = delays
        self._seed = seed
        self._slow = delays.slow_clients(seed, clients)
        self._heap: list[Due] = []

    def dispatched(self, order: ArrivalOrder, now: float, share: float, nbytes: int) -> bool:
        delays = self._delays
        rng = generator(self._seed, "service time", order.client, order.visit)
        seconds = delays.mean_seconds * delays.distribution.draw(rng) * share
        if order.client in self._slow:
            seconds *= delays.slow_factor
        if delays.bandwidth is not None:
            seconds += nbytes / delays.bandwidth
        lost = bool(rng.random() < delays.drop_rate)
        if lost:
            seconds += delays.away_seconds
        heapq.heappush(self._heap, Due(now + seconds, order.number, lost))
        return not lost

    def next(self, until: float) -> Due | None:
        if not self._heap or self._heap[0].seconds > until:
            return None
        return heapq.heappop(self._heap)

    def state(self) -> Tree:
        return {"heap": self._heap}

    def restore(self, state: Tree) -> None:
        self._heap = state["heap"]


class WallClock(Clock):
    """Updates are applied as they come."""

    name = "wall"

    def __init__(self, ready: Callable[[float], int | None]) -> None:
        """Args:
        ready: waits at most so many seconds (inf: without end) for a finished work, and gives its number.
        """
        self._ready = ready
        self._began = time.perf_counter()

    def dispatched(self, order: ArrivalOrder, now: float, share: float, nbytes: int) -> bool:
        return True

    def next(self, until: float) -> Due | None:
        number = self._ready(max(0.0, until - self._now()))
        return None if number is None else Due(min(self._now(), until), number)

    def state(self) -> Tree:
        return {"seconds": self._now()}

    def restore(self, state: Tree) -> None:
        self._began = time.perf_counter() - state["seconds"]

    def _now(self) -> float:
        return time.perf_counter() - self._began


class ReplayClock(Clock):
    """The order and the times of a recorded run."""

    def __init__(self, path: Path, name: str) -> None:
        """Args:
        path: `events.parquet` of that run; name: of its clock.

        Raises:
            DataError: it is missing, damaged or no record of arrivals.
        """
        from fedbench.records.reader import load_events

        self.name = name
        self._path = path
        rows = load_events(path).select(["worker", "client", "arrived_seconds", "status"]).to_pylist()
        self._rows = deque(rows)
        self._of_worker: dict[int, deque[tuple[int, bool]]] = {}
        for row in rows:
            future = self._of_worker.setdefault(row["worker"], deque())
            future.append((row["client"], row["status"] == "lost"))
        self._flying: dict[int, ArrivalOrder] = {}

    def dispatched(self, order: ArrivalOrder, now: float, share: float, nbytes: int) -> bool:
        self._flying[order.worker] = order
        future = self._of_worker.get(order.worker)
        if not future:
            return True  # in flight when the recorded run ended
        client, lost = future.popleft()
        if client != order.client:
            raise ConfigError(
                f"delays.replay={self._path}: worker {order.worker} has client {client} there and {order.client} here; "
                "replay it with the configuration of its own run (config.yaml beside it)"
            )
        return not lost

    def next(self, until: float) -> Due | None:
        if not self._rows and until < NEVER:
            return None
        if not self._rows:
            raise RunError(f"delays.replay={self._path}: ends before the run does; lower rounds, or run it anew")
        if self._rows[0]["arrived_seconds"] > until:
            return None
        row = self._rows.popleft()
        order = self._flying.pop(row["worker"], None)
        if order is None:
            raise ConfigError(f"delays.replay={self._path}: has {row['worker']} for a worker that has no work here")
        return Due(row["arrived_seconds"], order.number, row["status"] == "lost")

    def state(self) -> Tree:
        return {"rows": len(self._rows), "flying": self._flying}

    def restore(self, state: Tree) -> None:
        self._flying = state["flying"]
        while len(self._rows) > state["rows"]:
            self._of_worker[self._rows.popleft()["worker"]].popleft()
        for worker in self._flying:
            if self._of_worker.get(worker):
                self._of_worker[worker].popleft()


def make_clock(config: ExperimentConfig, ready: Callable[[float], int | None]) -> "Clock":
    """The clock of an asynchronous run.

    Args:
        ready: waits for a finished work, as an executor does.

    Raises:
        DataError: `delays.replay` names no record of arrivals.
    """

    delays = config.delays
    if delays.replay is not None:
        return ReplayClock(delays.replay, delays.clock)
    if delays.clock == "wall":
        return WallClock(ready)
    return VirtualClock(delays, config.seed, config.data.clients)
