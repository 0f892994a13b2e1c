"""The records of asynchronous runs against their events."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from arrival_runs import Oracle, followed
from async_cases import ONE_WORKER, SEQUENTIAL, UNCUT, events_of, initial, inline, problem_of
from torch.nn.functional import cross_entropy

from fedbench.accounting.flops import StepFlops
from fedbench.accounting.paper import forward_macs
from fedbench.config.experiment import ExperimentConfig
from fedbench.experiment.run import run
from fedbench.experiment.setup import Problem
from fedbench.models.groups import build_module, derive_layer_groups

pytestmark = pytest.mark.usefixtures("run_folder")

BOOKS = {
    "full": (),
    "sequential": (*SEQUENTIAL, "rounds=5", "delays.arrivals_per_round=6"),
    "lost tasks": (*SEQUENTIAL, "rounds=4", "delays.drop_rate=0.3", "delays.away_seconds=1.5"),
    "more clients than slots": ("delays.concurrency=2", "data.clients=5", "delays.arrivals_per_round=9"),
    "per client": ("schedule=per-client", "schedule.warmup_rounds=1", "delays.arrivals_per_round=5"),
    "local statistics": ("local.batchnorm=local", *SEQUENTIAL),
    "buffered": ("algorithm=fedbuff", "algorithm.buffer_size=3", *SEQUENTIAL, "local.steps=2", "rounds=5"),
    "slow": ("delays.slow_fraction=0.25", "delays.slow_factor=5", "delays.arrivals_per_round=10"),
    "unequal clients": ("local.epochs=2", "data.partition=quantity", "data.partition.alpha=2", "rounds=2", UNCUT),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BOOKS)
def test_the_records_agree_with_the_events(name: str) -> None:
    config = inline(*BOOKS[name])
    result, problem = run(config), problem_of(config)
    events, rows = events_of(result), result.history.to_pylist()
    clients = pq.read_table(result.directory / "clients.parquet").to_pylist()
    check_events(problem, events)
    assert len(rows) == problem.rounds
    oracle, workers = Oracle(problem, events), config.slots()
    per_round = config.delays.arrivals_per_round or workers
    flops = flops_of(problem, oracle)
    samples = 0.0
    for row in rows:
        places = [place for place, event in enumerate(events) if event["round"] == row["round"]]
        arrived = [place for place in places if events[place]["status"] != "lost"]
        assert row["phase"] == "async"
        assert row["clients"] == len(arrived) == per_round
        assert row["rejected_clients"] == 0
        assert row["virtual_seconds"] == events[places[-1]]["arrived_seconds"]
        assert row["uplink_bytes"] == sum(events[place]["uplink_bytes"] for place in places)
        assert row["downlink_bytes"] == sum(events[place]["downlink_bytes"] for place in places)
        assert row["client_flops"] == sum(flops[place] for place in arrived)
        assert row["staleness_mean"] == sum(oracle.staleness(place) for place in arrived) / per_round
        assert row["staleness_max"] == max(oracle.staleness(place) for place in arrived)
        groups = {oracle.groups(place) for place in arrived}
        assert row["group"] == (groups.pop()[0] if len(groups) == 1 and len(next(iter(groups))) == 1 else -1)
        samples += sum(trained_samples(config, problem, oracle, place) for place in arrived)
        assert row["epochs"] == pytest.approx(samples / sum(problem.federation.sizes), rel=1e-12)
        assert row["test_accuracy"] is not None
    assert [row["virtual_seconds"] for row in rows] == sorted({row["virtual_seconds"] for row in rows})
    arrived = [place for place, event in enumerate(events) if event["status"] != "lost"]
    assert [(row["round"], row["client"], row["flops"]) for row in clients] == [
        (events[place]["round"], events[place]["client"], flops[place]) for place in arrived
    ]
    assert result.summary["arrivals"] == len(arrived)
    assert result.summary["lost_updates"] == len(events) - len(arrived)
    assert result.summary["staleness_max"] == max(oracle.staleness(place) for place in arrived)
    assert result.summary["virtual_seconds"] == rows[-1]["virtual_seconds"]


def check_events(problem: Problem, events: Sequence[dict[str, Any]]) -> None:
    """In the clock's order; indices, delays and bytes as they follow from it."""
    oracle, method = Oracle(problem, events), problem.config.asynchronous
    assert method is not None
    workers = problem.config.slots()
    assert [event["arrival"] for event in events] == list(range(len(events)))
    times = [event["arrived_seconds"] for event in events]
    assert times == sorted(times)
    for place, event in enumerate(events):
        before = oracle.given[place]
        assert event["dispatched_seconds"] == (times[before] if before >= 0 else 0.0)
        assert event["arrived_seconds"] > event["dispatched_seconds"]
        assert event["index"] == oracle.index(place)
        assert event["staleness"] == oracle.staleness(place)
        assert event["status"] in ("ok", "lost")
        groups = oracle.groups(place)
        assert event["group"] == (groups[0] if len(groups) == 1 else -1)
        assert event["uplink_bytes"] == (oracle.uplink(groups) if event["status"] == "ok" else 0)
        assert event["downlink_bytes"] == oracle.downlink(place, method.period(workers)), place
    accepted = [place for place, event in enumerate(events) if event["status"] == "ok"]
    assert sum(events[place]["staleness"] for place in accepted) <= (workers - 1) * len(accepted)


def flops_of(problem: Problem, oracle: Oracle) -> list[int]:
    """FLOPs of each task: those of a training step at its groups and minibatch size, as PyTorch counts them."""
    config, task = problem.config, problem.federation.task
    module = build_module(config.model, task, 0)
    step = StepFlops(module, derive_layer_groups(module, task), task)
    return [
        sum(step.flops(oracle.groups(place), size) for size in minibatch_sizes(config, problem, oracle, place))
        for place in range(len(oracle.events))
    ]


def minibatch_sizes(config: ExperimentConfig, problem: Problem, oracle: Oracle, place: int) -> list[int]:
    """Sizes of the minibatches of the task at `place`."""
    samples, size = problem.federation.sizes[oracle.events[place]["client"]], config.local.batch_size
    epoch = [min(size, samples - start) for start in range(0, samples, size)]
    assert min(epoch) > 1, "batch normalisation leaves out a minibatch of one"
    if config.local.epochs:
        return epoch * config.local.epochs
    if config.local.steps:
        return epoch[: config.local.steps]
    return [epoch[oracle.visit(place) % len(epoch)]]


def trained_samples(config: ExperimentConfig, problem: Problem, oracle: Oracle, place: int) -> float:
    """Of an epoch's minibatches as many as were trained on, all counted alike where local.steps cuts it short."""
    if config.local.steps:
        samples = problem.federation.sizes[oracle.events[place]["client"]]
        return samples * config.local.steps / math.ceil(samples / config.local.batch_size)
    return sum(minibatch_sizes(config, problem, oracle, place))


@pytest.mark.parametrize("name", ["sequential", "full"])
def test_the_papers_own_counting(name: str) -> None:
    """Comm. of each arrival's groups; Comp. of each arrival a K-th of a client's, two thirds of it where partial."""
    config = inline(*BOOKS[name])
    result, problem = run(config), problem_of(config)
    events = events_of(result)
    oracle, layout, task = Oracle(problem, events), problem.layout, problem.federation.task
    macs = forward_macs(build_module(config.model, task, 0), task)
    comm = comp = 0.0
    for place in range(len(events)):
        groups = oracle.groups(place)
        passes = 3 if len(groups) == layout.groups else 2
        comm += 4 * layout.count(groups) / 1e6 / 1024
        comp += macs * passes * trained_samples(config, problem, oracle, place) / 4 / 1e12
    assert result.summary["paper_comm_gb"] == pytest.approx(comm, rel=1e-9)
    assert result.summary["paper_comp_tflop"] == pytest.approx(comp, rel=1e-9)


COSTS = ("uplink_bytes", "downlink_bytes", "client_flops", "paper_comm_gb", "paper_comp_tflop")


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("algorithm=fedbuff", "algorithm.buffer_size=3", "local.steps=2"),
        ("delays.drop_rate=0.3", "delays.away_seconds=1.5"),
        ("algorithm=dana-zero", "delays.drop_rate=0.3", "delays.away_seconds=1.5", *ONE_WORKER),
    ],
    ids=" ".join,
)
def test_a_run_of_full_updates_costs_what_full_updates_would(overrides: Sequence[str]) -> None:
    summary = run(inline(*overrides, "rounds=4")).summary
    for name in COSTS:
        assert summary["full_updates"][name] == pytest.approx(summary[name], rel=1e-12), name


def test_partial_updates_are_compared_with_full_ones_of_the_same_arrivals() -> None:
    config = inline(*BOOKS["sequential"])
    result, problem = run(config), problem_of(config)
    oracle = Oracle(problem, events_of(result))
    full, arrivals = result.summary["full_updates"], len(oracle.events)
    whole = oracle.uplink(problem.layout.all_groups)
    assert full["uplink_bytes"] == full["downlink_bytes"] == arrivals * whole
    assert result.summary["uplink_bytes"] == sum(event["uplink_bytes"] for event in oracle.events) < arrivals * whole
    assert full["client_flops"] > result.summary["client_flops"]


def test_the_norm_of_a_row_is_that_of_the_models_change() -> None:
    done = followed(inline(*SEQUENTIAL))
    before = done.problem.vector
    for row, (vector, _) in zip(done.rows, done.models, strict=True):
        assert row.update_norm == pytest.approx(float(np.linalg.norm(vector - before)), rel=1e-5)
        before = vector


@pytest.mark.parametrize("algorithm", ["ormo", "dana-zero"])
def test_what_is_scored_is_the_model(algorithm: str) -> None:
    """And not what a worker was sent last, even where nothing has arrived since."""
    done = followed(inline("delays.seconds_per_round=1.1", "rounds=4", f"algorithm={algorithm}"))
    data, layout = done.problem.federation.data, done.problem.layout
    module = initial(done.problem.config).eval()
    images = torch.tensor(data.test.inputs).permute(0, 3, 1, 2) / 255
    for row, (vector, statistics) in zip(done.rows, done.models, strict=True):
        tensors = layout.unflatten(vector) | {slot.name: slot.view(statistics) for slot in layout.statistics}
        module.load_state_dict({name: torch.tensor(tensor) for name, tensor in tensors.items()}, strict=False)
        with torch.inference_mode():
            loss = cross_entropy(module(images), torch.tensor(data.test.labels))
        assert row.test_loss == pytest.approx(float(loss), rel=1e-5)
