"""Arrivals per second: what the server sustains by itself, and a whole run against bare loops of gradients.

pytest tests/benchmarks -m benchmark -s
"""

import os
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from bare_gradients import BareGradients

from fedbench.config.experiment import ExperimentConfig
from fedbench.engine.arrivals.clocks import VirtualClock
from fedbench.engine.arrivals.loop import ArrivalLoop
from fedbench.engine.arrivals.server import ArrivalServer
from fedbench.engine.messages import BatchReport
from fedbench.engine.on_ray.actors import ActorCluster
from fedbench.engine.on_ray.arrivals import RayArrivalExecutor
from fedbench.engine.on_ray.batches import Batch
from fedbench.experiment.federation import load_federation
from fedbench.experiment.setup import Problem, build_problem

pytestmark = [pytest.mark.benchmark, pytest.mark.slow]

PROCESSES = min(2, os.cpu_count() or 1)
WORKERS = 16
ARRIVALS = 160
"""Arrivals of a round."""

ROUNDS = 7
"""Rounds that are measured, after one that warms up."""


def config(*overrides: str) -> ExperimentConfig:
    return ExperimentConfig.load(
        None,
        [
            "rounds=4",
            "data.dataset=random_images:RandomImages",
            "data.dataset.rows=1600",
            f"data.clients={WORKERS}",
            "model=resnet20",
            "local.batch_size=8",
            "algorithm=ormo",
            f"delays.arrivals_per_round={ARRIVALS}",
            f"runtime.actors={PROCESSES}",
            *overrides,
        ],
    )


@pytest.mark.parametrize("method", ["asgd", "ormo", "dana-zero", "smega2"])
def test_what_the_server_sustains(method: str, capsys: pytest.CaptureFixture[str]) -> None:
    settings = config(f"algorithm={method}")
    problem = build_problem(settings, load_federation(settings))
    server = ArrivalServer(problem.arrival_server)
    parts = tuple(range(len(problem.spec.table.parts)))
    upload = np.zeros(problem.spec.table.values(parts), np.float32)
    for worker in range(WORKERS):
        server.send(worker, worker, problem.layout.all_groups, parts)
    rates = []
    number = WORKERS
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(100):
            server.apply(number - WORKERS, upload, 0.01, 1)
            server.send(number, number % WORKERS, problem.layout.all_groups, parts)
            number += 1
        rates.append(100 / (time.perf_counter() - began))
    with capsys.disabled():
        print(
            f"\n{method}: server alone, ResNet-20 (269,722 parameters): {statistics.median(rates):,.0f} arrivals/s "
            f"({min(rates):,.0f} to {max(rates):,.0f})"
        )


@contextmanager
def bare_loops(problem: Problem) -> Iterator[dict[str, BareGradients]]:
    """{memory format: bare loops in two processes}, ended with the context."""
    settings, task = problem.config, problem.federation.task
    loops = {
        name: BareGradients(
            settings.model, task, settings.local.batch_size, PROCESSES, channels_last=name == "channels_last"
        )
        for name in ("contiguous", "channels_last")
    }
    try:
        yield loops
    finally:
        for loop in loops.values():
            loop.close()


class Timed(RayArrivalExecutor):
    """Keeps the reports of its actors, and the seconds that the server took."""

    def __init__(self, *arguments: Any) -> None:
        self.reports: list[tuple[int, BatchReport]] = []
        self.server_seconds = 0.0
        super().__init__(*arguments)

    def _keep(self, batch: Batch, report: BatchReport) -> None:
        super()._keep(batch, report)
        self.reports.append((batch.actor, report))

    def end_round(self) -> tuple[float, int]:
        self._give_out()
        self._send_steps()
        self.server_seconds += sum(self._server.settle())
        return super().end_round()

    def parts(self) -> tuple[list[float], dict[str, float]]:
        """Of the reports since the last call.

        Returns:
            For each actor, the share of the time between the start of its first batch and the end of its last one in
            which it had a task; and the milliseconds of a task by what they were spent on.
        """
        shares, waited, tasks = [], 0.0, 0
        for actor in range(PROCESSES):
            batches = [report for index, report in self.reports if index == actor]
            idle = sum(later.began - earlier.ended for earlier, later in pairwise(batches))
            shares.append(1 - idle / (batches[-1].ended - batches[0].began))
            waited += idle
            tasks += sum(len(report.clients) for report in batches)
        seconds = {
            "waiting for parameters": waited,
            "load": sum(report.spent.load for _, report in self.reports),
            "compute": sum(report.spent.compute for _, report in self.reports),
            "upload": sum(report.spent.upload for _, report in self.reports),
            "apply and send (in the server)": self.server_seconds,
            "tasks in a batch": tasks / len(self.reports) * tasks / 1e3,
        }
        self.reports, self.server_seconds = [], 0.0
        return shares, {name: 1e3 * value / tasks for name, value in seconds.items()}


@contextmanager
def timed(settings: ExperimentConfig) -> Iterator[tuple[Problem, Timed]]:
    """The problem and an executor on new actors, ended with the context."""
    problem = build_problem(settings, load_federation(settings))
    data, rows = problem.federation.data, problem.federation.rows
    cluster = ActorCluster(settings.runtime, WORKERS)
    executor = Timed(cluster, problem.spec, data, rows, problem.arrival_server, settings.runtime)
    try:
        yield problem, executor
    finally:
        executor.close()


@pytest.mark.usefixtures("local_ray")
def test_arrivals_against_bare_loops(capsys: pytest.CaptureFixture[str]) -> None:
    """A round's arrivals and the same number of gradients in plain processes take turns.

    The bare loops (`bare_gradients.py`) only compute: they send nothing to a server and wait for nothing. Of the two
    memory formats the faster one counts. Tasks that are in flight at the end of a round are computed within the time of
    that round, so that nothing of fedbench runs beside the bare loops; the round after it finds their results.

    Printed beside the ratio: for each actor, the share of the time in which it has a task, from the first task of a
    round to its last one, and where the time of a task goes. These are real seconds: where more processes want to run
    than there are cores, they contain what an actor waits for a core.
    """
    settings = config(f"rounds={ROUNDS + 2}", "evaluation.every=1000")
    with timed(settings) as (problem, executor), bare_loops(problem) as bare:
        assert problem.arrivals is not None
        for loop in bare.values():
            loop.seconds(2 * PROCESSES)
        clock = VirtualClock(settings.delays, settings.seed, WORKERS)
        rounds = ArrivalLoop(problem.arrivals, executor, clock, problem.costs).rounds(1000, lambda: False)
        milliseconds: dict[str, list[float]] = {name: [] for name in ("fedbench", *bare)}
        busy: list[float] = []
        spent: list[dict[str, float]] = []
        for _ in range(ROUNDS + 1):
            began = time.perf_counter()
            next(rounds)
            executor.compute_all()
            seconds = time.perf_counter() - began
            milliseconds["fedbench"].append(1e3 * seconds / ARRIVALS)
            shares, parts = executor.parts()
            busy.append(min(shares))
            spent.append(parts)
            for name, loop in bare.items():
                milliseconds[name].append(1e3 * loop.seconds(ARRIVALS) / ARRIVALS)
    with capsys.disabled():
        print(f"\nOrMo, ResNet-20, minibatches of 8, {WORKERS} workers on {PROCESSES} actors, {ARRIVALS} arrivals:")
        for name, values in milliseconds.items():
            print(f"  {name}: ms an arrival, min, median, max: {spread(values[1:])}")
        ratios = [
            mine / min(milliseconds[name][index] for name in bare)
            for index, mine in enumerate(milliseconds["fedbench"])
        ]
        print(f"  ratio to the faster of the bare loops: {spread(ratios[1:])}")
        print(f"  share of the time in which the less busy actor computes: {spread(busy[1:])}")
        print("  ms a task, medians:")
        for name in spent[0]:
            print(f"    {name}: {statistics.median(parts[name] for parts in spent[1:]):.2f}")


def spread(values: Sequence[float]) -> str:
    """Minimum, median and maximum."""
    return f"{min(values):.2f} / {statistics.median(values):.2f} / {max(values):.2f}"
