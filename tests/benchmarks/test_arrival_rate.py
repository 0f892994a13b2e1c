"""Arrivals per second: what the server sustains by itself, and a whole run against bare loops of gradients.

pytest tests/benchmarks -m benchmark -s
"""

import os
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pytest
from bare_gradients import BareGradients

from fedbench.config.experiment import ExperimentConfig
from fedbench.engine.arrivals.clocks import VirtualClock
from fedbench.engine.arrivals.loop import ArrivalLoop
from fedbench.engine.arrivals.server import ArrivalServer
from fedbench.engine.interfaces import ArrivalExecutor
from fedbench.experiment.federation import load_federation
from fedbench.experiment.run import prepared
from fedbench.experiment.setup import Problem, build_problem

pytestmark = [pytest.mark.benchmark, pytest.mark.slow]

PROCESSES = min(2, os.cpu_count() or 1)
WORKERS = 16
ARRIVALS = 160
"""Arrivals of a round."""

ROUNDS = 5
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


@pytest.mark.usefixtures("local_ray")
def test_arrivals_against_bare_loops(capsys: pytest.CaptureFixture[str]) -> None:
    """A round's arrivals and the same number of gradients in plain processes take turns.

    The bare loops (`bare_gradients.py`) only compute: they send nothing to a server and wait for nothing. Of the two
    memory formats the faster one counts. Tasks that are in flight at the end of a round are computed within the time of
    that round, so that nothing of fedbench runs beside the bare loops; the round after it finds their results.

    Printed beside the ratio: the share of the time in which an actor computes, of all actors together, which is what
    the tasks' own seconds say, a core that an actor has to give to another process included.
    """
    settings = config(f"rounds={ROUNDS + 2}", "evaluation.every=1000")
    with prepared(settings) as (problem, executor), bare_loops(problem) as bare:
        assert isinstance(executor, ArrivalExecutor)
        assert problem.arrivals is not None
        for loop in bare.values():
            loop.seconds(2 * PROCESSES)
        clock = VirtualClock(settings.delays, settings.seed, WORKERS)
        rounds = ArrivalLoop(problem.arrivals, executor, clock, problem.costs).rounds(1000, lambda: False)
        milliseconds: dict[str, list[float]] = {name: [] for name in ("fedbench", *bare)}
        busy = []
        for _ in range(ROUNDS + 1):
            began = time.perf_counter()
            finished = next(rounds)
            executor.state()
            seconds = time.perf_counter() - began
            milliseconds["fedbench"].append(1e3 * seconds / ARRIVALS)
            busy.append(sum(client.seconds for client in finished.clients) / PROCESSES / seconds)
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
        print(f"  ratio to the faster of the bare loops: {spread(ratios[1:])}; actors compute: {spread(busy[1:])}")


def spread(values: Sequence[float]) -> str:
    """Minimum, median and maximum."""
    return f"{min(values):.2f} / {statistics.median(values):.2f} / {max(values):.2f}"
