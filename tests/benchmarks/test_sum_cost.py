"""What exact sums cost: against memory bandwidth, for each client of a small network, and in the round of a large one.

Prints figures and ratios, judges nothing:

    pytest tests/benchmarks/test_sum_cost.py -m benchmark -s

Measured with `-k bandwidth` on a virtual machine with 2 cores of a Zen 4 EPYC, other processes beside it, in process
time: median (min to max) of 9 sums of a single float32 message at the server, beside NumPy's int64 addition.

        values   int64 addition          with numba 0.68                    with NumPy alone
     1,237,962    0.7 ms (0.6 to 0.9)     0.8 ms (0.7 to 551, the import)    4.0 ms (3.9 to 4.1)
    33,655,114   19.9 ms (18.5 to 22.3)  21.3 ms (19.3 to 36.3)             82.5 ms (81.7 to 83.1)

With numba that is 94 % of the bandwidth in bytes touched and 47 % in bytes received, of which a float32 message has
half as many as an int64 sum; with NumPy alone, measured at another time and by the wall clock, 25 % and 12 %. None of
the arrangements of NumPy's operations that were tried came beyond 26 % of the bytes touched: a scalar product or a
maximum of unsigned integers as the test of the range, the offset left in the total, pieces of 4,096 to 32,768 values.
numba costs a process 0.65 s of processor time and 125 MB (0.2 s and 58 MB of it the import; 0.95 s where nothing has
been compiled yet), and 208 MB on disk.
"""

import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch

from fedbench.config.experiment import ExperimentConfig
from fedbench.engine.client_host import ClientHost
from fedbench.engine.on_ray.rounds import RayRoundExecutor
from fedbench.engine.rounds.server import Server
from fedbench.experiment.federation import load_federation
from fedbench.experiment.run import prepared
from fedbench.experiment.setup import build_problem

pytestmark = [pytest.mark.benchmark, pytest.mark.slow]

BYTES_TOUCHED = 24
"""Bytes that a sum reads or writes for each value: the int64 total twice, and 8 bytes of what is added and of what it
is measured from."""

REPEATS = 9


def config(*overrides: str) -> ExperimentConfig:
    return ExperimentConfig.load(
        None,
        [
            "rounds=1000", "data.dataset=random_images:RandomImages", "data.dataset.rows=400", "schedule=full",
            "local.batch_size=10", "local.epochs=null", "local.steps=1", *overrides,
        ],
    )  # fmt: skip


def timed(work: Callable[[], object]) -> float:
    """Seconds of this process's time, in which other processes count little."""
    began = time.process_time()
    work()
    return time.process_time() - began


def spread(milliseconds: list[float]) -> str:
    return f"{statistics.median(milliseconds):.1f} ms ({min(milliseconds):.1f} to {max(milliseconds):.1f})"


@pytest.mark.parametrize("model", ["resnet8", "vgg16"])
def test_sums_against_memory_bandwidth(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    torch.set_num_threads(1)
    settings = config(f"model={model}", "data.clients=8", "runtime.executor=inline")
    problem = build_problem(settings, load_federation(settings))
    server = Server(problem.server)
    table = problem.spec.table
    size = table.values(table.uploaded(server.plan(0).active.groups))
    rng = np.random.default_rng(0)
    update = rng.integers(-(2**40), 2**40, size)
    message = server.payload(tuple(range(len(table.parts)))) + rng.normal(0, 0.01, size).astype(np.float32)
    total, copied = np.ones(size, np.int64), np.ones(size, np.float32)
    tensors = [torch.from_numpy(array) for array in (total, update, copied, message)]
    ways: dict[str, tuple[Callable[[], object], int, int]] = {
        "NumPy: total += update (int64)": (lambda: np.add(total, update, out=total), 8, 24),
        "PyTorch: total += update (int64)": (lambda: tensors[0].add_(tensors[1]), 8, 24),
        "NumPy: copy of a float32 message": (lambda: np.copyto(copied, message), 4, 8),
        "PyTorch: copy of a float32 message": (lambda: tensors[2].copy_(tensors[3]), 4, 8),
        "server: partial sum (int64)": (lambda: server.receive(update, (0,)), 8, BYTES_TOUCHED),
        "server: single message (float32)": (lambda: server.receive(message, (0,)), 4, BYTES_TOUCHED),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(REPEATS):
        for name, (work, _, _) in ways.items():
            times[name].append(timed(work))
    medians = {name: statistics.median(seconds) for name, seconds in times.items()}
    add = medians["NumPy: total += update (int64)"]
    with capsys.disabled():
        print(f"\n{model}, {size:,} values, one thread; bandwidth is that of NumPy's int64 addition:")
        for name, (_, received, touched) in ways.items():
            seconds = medians[name]
            print(
                f"  {name:<36}{spread([1e3 * one for one in times[name]]):>30}{1e9 * seconds / size:6.2f} ns a value; "
                f"received {received * size / seconds / 1e9:5.1f} GB/s = {received / 8 * add / seconds:4.0%}, "
                f"touched {touched * size / seconds / 1e9:5.1f} GB/s = {touched / BYTES_TOUCHED * add / seconds:4.0%}"
            )


@pytest.mark.parametrize("combine", [True, False])
def test_a_client_of_resnet8(combine: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """Everything that a host does for a client but training it: the message, its test, its place in the answer."""
    settings = config("model=resnet8", "data.clients=10", "runtime.executor=inline")
    federation = load_federation(settings)
    problem = build_problem(settings, federation)
    server, host = Server(problem.server), ClientHost()
    host.prepare(problem.spec, federation.data, federation.rows)
    everything = tuple(range(len(problem.spec.table.parts)))
    each, received, rule = [], [], []
    for index in range(REPEATS):
        plan = server.plan(index)
        order = plan.order(plan.cohort, stale=everything, combine=combine, on_failure="raise")
        upload, report = host.train(order, server.payload(everything))
        each.append(1e3 * report.load_seconds / len(plan.cohort))
        received.append(1e3 * timed(partial(server.receive, upload, plan.cohort)) / len(plan.cohort))
        rule.append(1e3 * timed(server.finish))
    with capsys.disabled():
        what = "one exact sum of 10 clients" if combine else "10 messages"
        print(
            f"\nresnet8, {problem.layout.size:,} parameters, a host answers with {what}:\n  a client at the host "
            f"{spread(each[1:])}, at the server {spread(received[1:])}; server rule a round {spread(rule[1:])}"
        )


@pytest.mark.usefixtures("local_ray")
def test_a_round_of_a_large_model(capsys: pytest.CaptureFixture[str]) -> None:
    settings = config("model=vgg16", "data.clients=2", "runtime.actors=2")
    names = ("open the round", "hosts: load, message, test", "transport, waiting, sums", "server: rule")
    with prepared(settings) as (problem, executor):
        assert isinstance(executor, RayRoundExecutor)
        rounds = []
        for index in range(8):
            began = time.perf_counter()
            plan = executor.plan(index)
            planned = time.perf_counter()
            phase = executor.train(plan)
            executor._server.settle()
            summed = time.perf_counter()
            executor.finish()
            ended = time.perf_counter()
            parts = (
                planned - began, phase.load_seconds, summed - planned - phase.busy_seconds, ended - summed,
            )  # fmt: skip
            rounds.append([1e3 * part for part in (sum(parts), *parts)])
        size, moved = problem.layout.size * 4, phase.transport_bytes
    with capsys.disabled():
        whole, *columns = zip(*rounds[2:], strict=True)
        print(f"\n{size / 1e6:.0f} MB model, 2 clients on 2 actors, {moved / 1e6:.0f} MB a round moved:")
        print(f"  everything but training {spread(list(whole))}")
        for name, column in zip(names, columns, strict=True):
            print(f"    {name:<28} {spread(list(column))}")
