"""What a round of fedbench costs beside the same round of an expert's plain processes, and a partial beside a full one.

Prints ratios of wall time and of CPU time over rounds that alternate, so that a machine whose speed drifts slows both.
Judges nothing:

    pytest tests/benchmarks -m benchmark -s

Where FEDBENCH_PFL_PYTHON names the interpreter of a virtual environment that has pfl-research and the same version of
PyTorch (`pip install 'pfl[pytorch]'`), the same round of pfl-research takes turns with them.
"""

import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from bare_loop import BareLoop
from pfl_processes import PFL_PYTHON, PflProcesses
from plain_networks import FORMATS

from fedbench.config.experiment import ExperimentConfig
from fedbench.engine.interfaces import RoundExecutor
from fedbench.experiment.run import prepared
from fedbench.experiment.setup import Problem

pytestmark = [pytest.mark.benchmark, pytest.mark.slow]

PROCESSES = min(2, os.cpu_count() or 1)
JOBS = {"10 clients x 2,000 images, batch 32": (10, 2000, 32), "50 clients x 50 images, batch 10": (50, 50, 10)}
COMPONENTS = {"strided": "plain_networks:StridedCnn", "pooled": "plain_networks:PooledCnn"}


def config(network: str, clients: int, samples: int, batch_size: int, *overrides: str) -> ExperimentConfig:
    return ExperimentConfig.load(
        None,
        [
            "rounds=1000",
            "data.dataset=random_images:RandomImages",
            f"data.dataset.rows={clients * samples}",
            f"data.clients={clients}",
            f"model={COMPONENTS[network]}",
            f"local.batch_size={batch_size}",
            "local.epochs=1",
            "local.optimizer.lr=0.05",
            f"runtime.actors={PROCESSES}",
            *overrides,
        ],
    )


@contextmanager
def engine(settings: ExperimentConfig) -> Iterator[tuple[Problem, RoundExecutor]]:
    with prepared(settings) as pair:
        yield pair


def one_round(executor: RoundExecutor, index: int) -> None:
    executor.train(executor.plan(index))
    executor.finish()


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def worker_cpu_seconds() -> float:
    """CPU time that all descendants of this process have spent so far: actors, Ray's own processes, bare processes."""
    parents: dict[int, int] = {}
    ticks: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            parents[int(path.parent.name)], ticks[int(path.parent.name)] = int(fields[1]), sum(map(int, fields[11:13]))
    spent = 0
    for process in ticks:
        ancestor: int | None = parents[process]
        while ancestor is not None and ancestor != os.getpid():
            ancestor = parents.get(ancestor)
        spent += ticks[process] if ancestor is not None else 0
    return spent / os.sysconf("SC_CLK_TCK")


def cpu_seconds(work: Callable[[], object]) -> float:
    """CPU time of the work, in this process and its descendants, in steps of about 10 ms for each of them."""
    began = time.process_time() + worker_cpu_seconds()
    work()
    return time.process_time() + worker_cpu_seconds() - began


@contextmanager
def bare_loops(problem: Problem, network: str, batch_size: int) -> Iterator[dict[str, BareLoop]]:
    data = problem.federation.data.train
    rows = [part.copy() for part in problem.federation.rows]
    loops = {form: BareLoop(network, form, data.inputs, data.labels, rows, batch_size, PROCESSES) for form in FORMATS}
    try:
        yield loops
    finally:
        for loop in loops.values():
            loop.close()


@contextmanager
def pfl_research(problem: Problem, network: str, batch_size: int) -> Iterator[dict[str, PflProcesses]]:
    """pfl-research's rounds in both memory formats; none where it is not installed."""
    data = problem.federation.data.train
    peers: dict[str, PflProcesses] = {}
    try:
        for form in FORMATS if PFL_PYTHON else ():
            arguments = (data.inputs, data.labels, problem.federation.rows, batch_size, PROCESSES)
            peers[f"pfl-research {form}"] = PflProcesses(network, form, *arguments)
        yield peers
    finally:
        for peer in peers.values():
            peer.close()


@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize("network", COMPONENTS)
def test_a_round_against_the_bare_loop(network: str, job: str, capsys: pytest.CaptureFixture[str]) -> None:
    clients, samples, batch_size = JOBS[job]
    repeats = 7 if samples > 500 else 15
    with (
        engine(config(network, clients, samples, batch_size)) as (problem, executor),
        bare_loops(problem, network, batch_size) as loops,
        pfl_research(problem, network, batch_size) as peers,
    ):
        rounds: dict[str, Callable[[int], object]] = {
            "fedbench": lambda index: one_round(executor, index),
            **{name: loop.round for name, loop in {**loops, **peers}.items()},
        }
        times: dict[str, list[float]] = {name: [] for name in rounds}
        for index in range(repeats + 2):
            for name, of_round in rounds.items():
                times[name].append(seconds(lambda index=index, of_round=of_round: of_round(index)))
        spent = dict.fromkeys(rounds, 0.0)
        for index in range(repeats + 2, 2 * repeats + 2):
            for name, of_round in rounds.items():
                spent[name] += cpu_seconds(lambda index=index, of_round=of_round: of_round(index))
    measured = {name: of_loop[2:] for name, of_loop in times.items()}
    fastest = min(loops, key=lambda form: statistics.median(measured[form]))
    medians = ", ".join(f"{name} {statistics.median(of_loop):.3f}" for name, of_loop in measured.items())
    leanest = min(spent[form] for form in loops)
    with capsys.disabled():
        print(f"\n{network}, {job}, {PROCESSES} processes: s a round (median of {repeats}): {medians}")
        for name in ("fedbench", *peers):
            ratios = [own / other for own, other in zip(measured[name], measured[fastest], strict=True)]
            print(
                f"  {name}: time of a round against the bare loop ({fastest}): min {min(ratios):.3f}, median "
                f"{statistics.median(ratios):.3f}, max {max(ratios):.3f}; CPU time in all processes, Ray's own "
                f"included: {spent[name]:.2f} s against {leanest:.2f} s, ratio {spent[name] / leanest:.3f}"
            )


@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize("network", COMPONENTS)
def test_a_partial_round_against_a_full_one(network: str, capsys: pytest.CaptureFixture[str]) -> None:
    settings = config(
        network, 10, 500, 32, "schedule=sequential", "schedule.warmup_rounds=1", "schedule.rounds_per_group=1",
        "schedule.full_rounds_between_cycles=1", "schedule.cycles=6", "rounds=auto",
    )  # fmt: skip
    with engine(settings) as (problem, executor):
        times: dict[tuple[int, ...], list[float]] = {}
        for index in range(problem.rounds):
            plan = executor.plan(index)
            times.setdefault(plan.active.groups, []).append(seconds(lambda plan=plan: executor.train(plan)))
            executor.finish()
        layout, costs = problem.layout, problem.costs
        full = layout.all_groups
        whole = statistics.median(times[full][1:])
        with capsys.disabled():
            print(f"\n{network}: partial rounds of 10 clients x 500 images, batch 32, against full ones: time / FLOPs")
            for groups in sorted(times, key=lambda groups: (len(groups) < 2, groups)):
                if groups == full:
                    continue
                share = statistics.median(times[groups][1:]) / whole
                flops = costs.client_flops(groups, 0) / costs.client_flops(full, 0)
                print(f"  {layout.group_names[groups[0]]:<8} {share:.2f} / {flops:.2f}")
