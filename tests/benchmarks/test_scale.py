"""How far one experiment goes: clients, actors, the size of the model, and what the server adds up.

Prints figures and ratios, judges nothing:

    pytest tests/benchmarks/test_scale.py -m benchmark -s
"""

import os
import resource
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
import ray
import torch

from fedbench.config.experiment import ExperimentConfig
from fedbench.engine.on_ray.node_sum import NodeSum
from fedbench.engine.on_ray.rounds import RayRoundExecutor
from fedbench.engine.rounds.server import Server
from fedbench.experiment.federation import load_federation
from fedbench.experiment.run import prepared
from fedbench.experiment.setup import build_problem

pytestmark = [pytest.mark.benchmark, pytest.mark.slow]

SAMPLES = 10_000
MEGABYTE = 1e6
BYTES_EACH = 400_000_000 if torch.version.cuda else 250_000_000
"""Memory of an actor's own, after importing PyTorch: its CUDA build relocates much more."""


def config(*overrides: str) -> ExperimentConfig:
    return ExperimentConfig.load(
        None,
        [
            "rounds=1000", "data.dataset=random_images:RandomImages", f"data.dataset.rows={SAMPLES}",
            "model=plain_networks:PooledCnn", "local.batch_size=10", "local.epochs=1", "local.optimizer.lr=0.05",
            *overrides,
        ],
    )  # fmt: skip


def resident(actor: object) -> int:
    """Bytes, the largest resident size so far; to be called in the actor."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def rounds(executor: Any, count: int, first: int = 0) -> list[float]:
    times = []
    for index in range(first, first + count):
        began = time.perf_counter()
        executor.train(executor.plan(index))
        executor.finish()
        times.append(time.perf_counter() - began)
    return times


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.3f} s ({min(values):.3f} to {max(values):.3f})"


def seconds(work: Callable[[], object], repeats: int) -> float:
    """The median."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


@pytest.mark.usefixtures("local_ray")
def test_more_clients_with_the_same_work(capsys: pytest.CaptureFixture[str]) -> None:
    populations = (10, 100, 1000)
    share = f"runtime.cpus_per_client={1 / len(populations)}"
    times: dict[int, list[float]] = {clients: [] for clients in populations}
    with ExitStack() as stack:
        executors = {
            clients: stack.enter_context(
                prepared(config(f"data.clients={clients}", "runtime.actors=2", "runtime.server=head", share))
            )[1]
            for clients in populations
        }
        for index in range(8):  # in turn, so that a machine whose speed drifts slows all
            for clients, executor in executors.items():
                times[clients] += rounds(executor, 1, first=index)
        memory = {
            clients: ray.get(one._server.actor.__ray_call__.remote(resident)) for clients, one in executors.items()
        }
    with capsys.disabled():
        print(f"\n{SAMPLES} images divided among ever more clients, all in each round, 2 actors:")
        for clients in populations:
            ratios = [own / few for own, few in zip(times[clients][2:], times[populations[0]][2:], strict=True)]
            print(
                f"  {clients:>5} clients: {spread(times[clients][2:])} a round, {statistics.median(ratios):.2f} "
                f"({min(ratios):.2f} to {max(ratios):.2f}) of that of 10; server {memory[clients] / MEGABYTE:.0f} MB"
            )


@pytest.mark.usefixtures("local_ray")
def test_a_hundred_of_a_thousand_clients(capsys: pytest.CaptureFixture[str]) -> None:
    settings = config("data.clients=1000", "participation.clients_per_round=100", "runtime.actors=2")
    with prepared(settings) as (_, executor):
        times = rounds(executor, 12)[2:]
    with capsys.disabled():
        print(f"\n100 of 1,000 clients a round, 10 images each, 2 actors: {spread(times)} a round")


@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize("actors", [8, 32, 64])
def test_many_actors(actors: int, capsys: pytest.CaptureFixture[str]) -> None:
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if there < actors * BYTES_EACH:
        pytest.skip(f"{actors} processes with PyTorch need some {actors * BYTES_EACH / 1e9:.0f} GB")
    share = f"runtime.cpus_per_client={2 / actors}"
    began = time.perf_counter()
    with prepared(config("data.clients=64", f"runtime.actors={actors}", share)) as (_, executor):
        started = time.perf_counter() - began
        times = rounds(executor, 6)[1:]
    with capsys.disabled():
        print(f"\n{actors} actors, 64 clients of 156 images: up in {started:.0f} s, {spread(times)} a round")


@pytest.mark.usefixtures("local_ray")
def test_a_large_model(capsys: pytest.CaptureFixture[str]) -> None:
    settings = config("model=vgg16", "data.clients=2", "local.epochs=null", "local.steps=1", "runtime.actors=2")
    with prepared(settings) as (problem, executor):
        waits, trainings = [], []
        for index in range(5):
            plan = executor.plan(index)  # type: ignore[attr-defined]
            began = time.perf_counter()
            phase = executor.train(plan)  # type: ignore[attr-defined]
            executor.finish()  # type: ignore[attr-defined]
            whole = time.perf_counter() - began
            trainings.append(phase.busy_seconds - phase.load_seconds)
            waits.append(whole - trainings[-1])
        size = problem.layout.size * 4
    with capsys.disabled():
        print(
            f"\n{size / MEGABYTE:.0f} MB model, 2 clients of one minibatch, 2 actors: {spread(trainings[1:])} of "
            f"training, {spread(waits[1:])} for all else ({2 * 2 * size / MEGABYTE:.0f} MB up and down)"
        )


def test_what_a_server_adds_up(capsys: pytest.CaptureFixture[str]) -> None:
    settings = config("data.clients=8", "model=vgg16", "runtime.executor=inline")
    problem = build_problem(settings, load_federation(settings))
    server = Server(problem.server)
    plan = server.plan(0)
    table = problem.spec.table
    size = table.values(table.uploaded(plan.active.groups))
    rng = np.random.default_rng(0)
    total, update = np.zeros(size, np.int64), rng.integers(-(2**40), 2**40, size)
    message = rng.normal(0, 0.01, size).astype(np.float32)
    combiner = NodeSum()
    combiner.add(update)
    ways = {
        "NumPy, a += b of int64": (lambda: np.add(total, update, out=total), update.nbytes),
        "server, exact sums (int64)": (lambda: server.receive(update, (0,)), update.nbytes),
        "combiner, exact sums (int64)": (lambda: combiner.add(update), update.nbytes),
        "server, single messages (float32)": (lambda: server.receive(message, (0,)), message.nbytes),
    }
    bare = None
    with capsys.disabled():
        print(f"\nwhat one process adds up, {size / 1e6:.1f} million values:")
        for name, (work, nbytes) in ways.items():
            taken = seconds(work, 9)
            bare = bare or nbytes / taken
            print(f"  {name:<34} {nbytes / taken / 1e9:5.2f} GB/s received, {nbytes / taken / bare:.2f} of NumPy's")


@pytest.mark.usefixtures("local_ray")
def test_what_the_server_receives(capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print("\n16 clients, 4 actors on one node: what the server receives a round, against one update:")
    for combine, queue in (("actor", 1), ("actor", 4), ("node", 4)):
        actors = 16 // queue
        options = [f"runtime.combine={combine}", f"runtime.actors={actors}", f"runtime.cpus_per_client={2 / actors}"]
        with prepared(config("data.clients=16", *options)) as (problem, executor):
            assert isinstance(executor, RayRoundExecutor)
            plan = executor.plan(0)
            phase = executor.train(plan)
            executor.finish()
            down = sum(executor._spec.table.nbytes(range(len(plan.versions))) for _ in range(actors))
            update = problem.layout.size * 4
        with capsys.disabled():
            ratio = (phase.transport_bytes - down) / update
            print(f"  {actors:>2} actors, one sum per {combine:<5}: {ratio:.2f} x {update / MEGABYTE:.2f} MB")
