"""Arrivals per second: what the server sustains by itself, and a whole run against a bare loop of gradients.

pytest tests/benchmarks -m benchmark -s
"""

import os
import statistics
import time

import numpy as np
import pytest
import torch

from fedbench.config.experiment import ExperimentConfig
from fedbench.engine.arrivals.clocks import VirtualClock
from fedbench.engine.arrivals.loop import ArrivalLoop
from fedbench.engine.arrivals.server import ArrivalServer
from fedbench.engine.interfaces import ArrivalExecutor
from fedbench.experiment.federation import load_federation
from fedbench.experiment.run import prepared
from fedbench.experiment.setup import build_problem
from fedbench.models.groups import build_module

pytestmark = [pytest.mark.benchmark, pytest.mark.slow]

PROCESSES = min(2, os.cpu_count() or 1)
WORKERS = 16


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
            "delays.arrivals_per_round=80",
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


@pytest.mark.usefixtures("local_ray")
def test_arrivals_against_a_bare_loop(capsys: pytest.CaptureFixture[str]) -> None:
    """The bare loop computes the same gradients in this process alone; the run has as many processes as there are."""
    settings = config()
    with prepared(settings) as (problem, executor):
        assert isinstance(executor, ArrivalExecutor)
        assert problem.arrivals is not None
        module = build_module(settings.model, problem.federation.task, 0)
        images = torch.rand(8, 3, 32, 32)
        labels = torch.zeros(8, dtype=torch.long)

        def bare(steps: int) -> float:
            began = time.perf_counter()
            for _ in range(steps):
                module.zero_grad()
                torch.nn.functional.cross_entropy(module(images), labels).backward()
            return time.perf_counter() - began

        torch.set_num_threads(1)
        bare(5)
        clock = VirtualClock(settings.delays, settings.seed, WORKERS)
        rounds = ArrivalLoop(problem.arrivals, executor, clock, problem.costs).rounds(1000, lambda: False)
        lines = []
        for finished in rounds:
            record = finished.record
            busy = sum(client.seconds for client in finished.clients) / PROCESSES
            lines.append((record, busy / record.clients, bare(40) / 40))
    with capsys.disabled():
        print(f"\nOrMo, ResNet-20, minibatches of 8, {WORKERS} workers on {PROCESSES} actors, rounds of 80 arrivals:")
        for record, busy, step in lines[1:]:
            seconds = record.wall_seconds - record.evaluation_seconds
            each = seconds / record.clients
            print(
                f"  {1 / each:.1f} arrivals/s; an arrival {1e3 * each:.1f} ms, of which clients compute "
                f"{1e3 * busy:.1f} ms; bare step {1e3 * step:.1f} ms in one process; "
                f"ratio to {PROCESSES} such processes {each / (step / PROCESSES):.2f}; driver: dispatch "
                f"{1e3 * record.dispatch_seconds / record.clients:.2f} ms, waiting "
                f"{1e3 * record.training_seconds / record.clients:.2f} ms"
            )
