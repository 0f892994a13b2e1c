"""A convergence study: every series on every problem, for several horizons and seeds, on all processors."""

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

from fedbench.analysis.convergence.series import Measurement, ProblemName, Series, all_series, horizons, measure

HORIZONS: dict[ProblemName, tuple[int, int]] = {"quadratic": (8192, 7), "logistic": (4096, 6), "digits": (512, 5)}
"""For each problem the longest horizon, and how many there are, each half as long as the one after it."""

FITTED_HORIZONS = 4
"""A slope is fitted over so many of the longest horizons."""

PROGRESS_STEPS = 1000
"""Steps in which progress is told, whatever the number of runs."""


@dataclass(frozen=True)
class Study:
    """What a convergence study runs.

    Attributes:
        problems: names of the problems.
        seeds: seeds of the runs, ascending.
        scale: factor on the longest horizons, a power of two.
    """

    problems: tuple[ProblemName, ...]
    seeds: tuple[int, ...]
    scale: float = 1.0

    def horizons(self, problem: ProblemName) -> Sequence[int]:
        """The horizons T on a problem, ascending."""
        longest, count = HORIZONS[problem]
        return horizons(round(longest * self.scale), count)

    def fitted_from(self, problem: ProblemName) -> int:
        """The smallest horizon over which slopes on a problem are fitted."""
        return self.horizons(problem)[-FITTED_HORIZONS]

    def series(self, problem: ProblemName) -> tuple[Series, ...]:
        """The series on a problem."""
        return all_series(problem)

    def runs(self) -> "list[Run]":
        """Everything that is to be run, seed by seed."""
        return [
            Run(series, horizon, seed)
            for seed in self.seeds
            for problem in self.problems
            for series in self.series(problem)
            for horizon in self.horizons(problem)
        ]

    def measure(self, told: Callable[[int, int, str], None], processes: int | None = None) -> tuple[Measurement, ...]:
        """Run everything.

        Args:
            told: called with (steps done, steps in all, what has just been done).
            processes: processes that compute side by side; None: one for each processor. With one, it is this process.
        """
        runs = self.runs()
        total, done = sum(run.cost for run in runs), 0.0
        measured: dict[Run, Measurement] = {}
        told(0, PROGRESS_STEPS, "the first runs")
        with _results(runs, processes or os.cpu_count() or 1) as results:
            for run, measurement in results:
                measured[run] = measurement
                done += run.cost
                told(int(PROGRESS_STEPS * done / total), PROGRESS_STEPS, run.description)
        return tuple(measured[run] for run in runs)


@dataclass(frozen=True)
class Run:
    """One series for one horizon and one seed."""

    series: Series
    horizon: int
    seed: int

    @property
    def cost(self) -> float:
        """About how long it takes, relative to one iteration of the quadratic problem."""
        return self.horizon * self.series.cost

    @property
    def description(self) -> str:
        """What it is, in words."""
        return f"{self.series.problem}: {self.series.label}, T={self.horizon}, seed {self.seed}"

    def measure(self) -> tuple[Self, Measurement]:
        """Do it."""
        return self, measure(self.series, self.horizon, self.seed)


@contextmanager
def _results(runs: Sequence[Run], processes: int) -> Iterator[Iterator[tuple[Run, Measurement]]]:
    """The runs and their measurements, as they come; what has not begun is given up when the context ends."""
    if processes == 1:
        yield (run.measure() for run in runs)
        return
    pool = ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn"), initializer=_single_thread)
    try:
        futures: list[Future[tuple[Run, Measurement]]] = [pool.submit(run.measure) for run in runs]
        yield (future.result() for future in as_completed(futures))
    finally:
        pool.shutdown(cancel_futures=True)


def _single_thread() -> None:
    """Let matrix products of this process use one thread, since every processor has a process of its own."""
    from threadpoolctl import threadpool_limits

    threadpool_limits(1)
