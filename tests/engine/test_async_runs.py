"""Asynchronous runs end to end in one process: against plain PyTorch, and their records against their events."""

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from arrival_runs import Oracle, followed
from small import asynchronous
from torch.nn.functional import cross_entropy

from fedbench.accounting.flops import StepFlops
from fedbench.accounting.paper import forward_macs
from fedbench.config import ExperimentConfig
from fedbench.errors import ConfigError, RunError
from fedbench.experiment import Result, run
from fedbench.federation import load_federation
from fedbench.models.groups import build_module, derive_layer_groups
from fedbench.problem import Problem, build_problem
from fedbench.randomness import generator, torch_seed

pytestmark = pytest.mark.usefixtures("run_folder", "no_figures", "flops_counted_once", "one_thread")

PERCEPTRON = ("model=small:TwoLayers", "model.hidden=8")
SEQUENTIAL = ("schedule=sequential", "schedule.warmup_rounds=1", "schedule.rounds_per_group=1")
UNCUT = "data.samples_per_client=null"
EQUAL_TIMES = ("delays.distribution=constant", "data.samples_per_client=32")


def inline(*overrides: str) -> ExperimentConfig:
    return asynchronous("runtime.executor=inline", *overrides)


def events_of(result: Result) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(result.directory / "events.parquet").to_pylist()
    return rows


def without_wall(result: Result) -> list[dict[str, Any]]:
    return [event | {"wall_seconds": 0.0} for event in events_of(result)]


def problem_of(config: ExperimentConfig) -> Problem:
    return build_problem(config, load_federation(config))


def batches_of(config: ExperimentConfig, client: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """A client's minibatches, epoch after epoch."""
    federation = load_federation(config)
    rows, data = federation.rows[client], federation.data
    assert data.mean is None, "digits are used as they are"
    epoch = 0
    while True:
        order = rows[generator(config.seed, "minibatches", epoch, client).permutation(len(rows))]
        for start in range(0, len(rows), config.local.batch_size):
            chosen = order[start : start + config.local.batch_size]
            images = torch.tensor(data.train.inputs[chosen]).permute(0, 3, 1, 2) / 255
            yield images, torch.tensor(data.train.labels[chosen])
        epoch += 1


def initial(config: ExperimentConfig) -> torch.nn.Module:
    """The model that a run starts from."""
    return build_module(config.model, load_federation(config).task, torch_seed(config.seed, "model")).train()


def by_pytorch(config: ExperimentConfig, steps: int, **options: Any) -> dict[str, torch.Tensor]:
    """torch.optim.SGD on the sum of all clients' minibatch gradients: what its model comes to.

    Args:
        options: of the optimizer.
    """
    module = initial(config)
    optimizer = torch.optim.SGD(module.parameters(), lr=config.local.optimizer.lr, **options)
    clients = [batches_of(config, client) for client in range(config.data.clients)]
    for _ in range(steps):
        optimizer.zero_grad()
        for batches in clients:
            images, labels = next(batches)
            cross_entropy(module(images), labels).backward()
        optimizer.step()
    return module.state_dict()


def assert_same_model(result: Result, expected: dict[str, torch.Tensor]) -> None:
    found = result.state_dict()
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        if not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(tensor, expected[name], rtol=1e-4, atol=1e-5, msg=name)


ONE_WORKER = ("data.clients=1", "delays.arrivals_per_round=4", "evaluation.every=3")
WORKERS_OF_PYTORCH = {
    "ormo": ("algorithm=ormo", "algorithm.momentum=0.8"),
    "asgdm": ("algorithm=asgdm", "algorithm.momentum=0.8"),
    "asgd": ("algorithm=asgd",),
}


@pytest.mark.parametrize("model", [(), PERCEPTRON], ids=["statistics", "perceptron"])
@pytest.mark.parametrize("name", WORKERS_OF_PYTORCH)
def test_one_worker_is_sgd_as_pytorch_has_it(name: str, model: Sequence[str]) -> None:
    """Running statistics too: with one worker they are those of a sequential run."""
    config = inline(*ONE_WORKER, *model, *WORKERS_OF_PYTORCH[name], "local.optimizer.weight_decay=0.01")
    momentum = 0.0 if name == "asgd" else 0.8
    result = run(config)
    assert_same_model(result, by_pytorch(config, 12, momentum=momentum, weight_decay=0.01))
    assert result.history["train_loss"].to_pylist()[-1] < result.history["train_loss"].to_pylist()[0]


@pytest.mark.parametrize(("name", "nesterov"), [("ssgdm", False), ("ssgd-nesterov", True)])
def test_lock_steps_are_synchronous_sgd_on_the_summed_gradient(name: str, nesterov: bool) -> None:
    """Whatever order the workers come in, and also where rounds end within a lock-step."""
    config = inline(*PERCEPTRON, "data.clients=3", f"algorithm={name}", "delays.arrivals_per_round=4")
    result = run(config)
    assert [event["worker"] for event in events_of(result)] != [0, 1, 2] * 4
    assert_same_model(result, by_pytorch(config, 4, momentum=0.9, nesterov=nesterov))


@pytest.mark.parametrize("work", [(), ("local.steps=1",)], ids=["gradient", "delta"])
def test_the_learning_rate_is_that_of_the_round(work: Sequence[str]) -> None:
    """Of a client's own steps, or on its gradient: with one worker there is no round in between."""
    schedule = ("local.lr_schedule=step", "local.lr_schedule.milestones=[1]", "local.lr_schedule.gamma=0.5")
    config = inline(*ONE_WORKER, *PERCEPTRON, "algorithm=asgd", "rounds=2", *schedule, *work)
    module = initial(config)
    batches = first_of_each_epoch(config) if work else batches_of(config, 0)
    for rate in [0.05] * 4 + [0.025] * 4:
        optimizer = torch.optim.SGD(module.parameters(), lr=rate)
        images, labels = next(batches)
        optimizer.zero_grad()
        cross_entropy(module(images), labels).backward()
        optimizer.step()
    assert_same_model(run(config), module.state_dict())


def first_of_each_epoch(config: ExperimentConfig) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Local training begins a new epoch each time."""
    return itertools.islice(batches_of(config, 0), 0, None, 3)


def test_one_worker_of_a_method_with_estimates_computes_on_them() -> None:
    """DANA-Zero: g at w - eta beta v, then v <- beta v + g and w <- w - eta v."""
    config = inline(*ONE_WORKER, *PERCEPTRON, "algorithm=dana-zero", "algorithm.momentum=0.8")
    module, batches = initial(config), batches_of(config, 0)
    parameters = list(module.parameters())
    values = [parameter.detach().clone() for parameter in parameters]
    momenta = [torch.zeros_like(value) for value in values]
    for images, labels in itertools.islice(batches, 12):
        for parameter, value, momentum in zip(parameters, values, momenta, strict=True):
            parameter.data = value - 0.05 * 0.8 * momentum
        for momentum, gradient in zip(
            momenta, torch.autograd.grad(cross_entropy(module(images), labels), parameters), strict=True
        ):
            momentum.mul_(0.8).add_(gradient)
        for value, momentum in zip(values, momenta, strict=True):
            value -= 0.05 * momentum
    for parameter, value in zip(parameters, values, strict=True):
        parameter.data = value
    assert_same_model(run(config), module.state_dict())


def test_one_worker_with_local_training_is_centralised_training() -> None:
    """Each work is an epoch; deltas, applied as they are, add up to its end."""
    config = inline("data.clients=1", "delays.arrivals_per_round=2", "algorithm=asgd", "local.epochs=1")
    result = run(config)
    assert_same_model(result, by_pytorch(config, 3 * 2 * 3))
    assert result.history["epochs"].to_pylist() == [2.0, 4.0, 6.0]


def test_a_client_that_keeps_its_statistics_has_those_of_all_its_works() -> None:
    """With one worker those of a sequential run, by which the model is scored, too."""
    config = inline(*ONE_WORKER, "algorithm=asgd", "local.batchnorm=local")
    done, expected = followed(config), by_pytorch(config, 12)
    module, data = initial(config), done.problem.federation.data
    module.load_state_dict(expected)
    with torch.inference_mode():
        outputs = module.eval()(torch.tensor(data.test.inputs).permute(0, 3, 1, 2) / 255)
        loss = float(cross_entropy(outputs, torch.tensor(data.test.labels)))
    assert done.rows[-1].test_loss == pytest.approx(loss, rel=1e-4)


BOOKS = {
    "full": (),
    "sequential": (*SEQUENTIAL, "rounds=5", "delays.arrivals_per_round=6"),
    "lost works": (*SEQUENTIAL, "rounds=4", "delays.drop_rate=0.3", "delays.away_seconds=1.5"),
    "more clients than slots": ("delays.concurrency=2", "data.clients=5", "delays.arrivals_per_round=9"),
    "per client": ("schedule=per-client", "schedule.warmup_rounds=1", "delays.arrivals_per_round=5"),
    "local statistics": ("local.batchnorm=local", *SEQUENTIAL),
    "buffered": ("algorithm=fedbuff", "algorithm.buffer_size=3", *SEQUENTIAL, "local.steps=2", "rounds=5"),
    "slow": ("delays.slow_fraction=0.25", "delays.slow_factor=5", "delays.arrivals_per_round=10"),
    "unequal clients": ("local.epochs=2", "data.partition=quantity", "data.partition.alpha=2", "rounds=2", UNCUT),
}


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
    oracle, method = Oracle(problem, events), problem.config.method.asynchronous()
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
    """Of each work: of a training step at its groups and minibatch size, as PyTorch counts them."""
    config, task = problem.config, problem.federation.task
    module = build_module(config.model, task, 0)
    step = StepFlops(module, derive_layer_groups(module, task), task)
    return [
        sum(step.flops(oracle.groups(place), size) for size in minibatch_sizes(config, problem, oracle, place))
        for place in range(len(oracle.events))
    ]


def minibatch_sizes(config: ExperimentConfig, problem: Problem, oracle: Oracle, place: int) -> list[int]:
    """Of the work at `place`."""
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


def test_two_workers_of_which_one_is_three_times_slower() -> None:
    """The fast one ends at 1, 2, 3, 4, ..., the slow one at 3, before the fast one, and at 6, likewise."""
    config = inline("data.clients=2", "delays.slow_fraction=0.5", "delays.slow_factor=3", *EQUAL_TIMES, "rounds=4")
    (slow,) = config.delays.slow_clients(config.seed, 2)
    fast = 1 - slow
    columns = ("worker", "dispatched_seconds", "arrived_seconds", "index", "staleness")
    found = [tuple(event[name] for name in columns) for event in events_of(run(config))]
    expected = [
        (fast, 0.0, 1.0, 0, 0),
        (fast, 1.0, 2.0, 1, 0),
        (slow, 0.0, 3.0, 0, 2),
        (fast, 2.0, 3.0, 2, 1),
        (fast, 3.0, 4.0, 4, 0),
        (fast, 4.0, 5.0, 5, 0),
        (slow, 3.0, 6.0, 3, 3),
        (fast, 5.0, 6.0, 6, 1),
    ]
    # Their first works were given out at the same time, the one in slot 0 first; from there on the slow one's is older.
    assert [(worker, *map(pytest.approx, rest)) for worker, *rest in expected] == found


def test_rounds_of_seconds_hold_what_arrives_in_them() -> None:
    config = inline("rounds=12", "delays.seconds_per_round=0.4", "delays.drop_rate=0.2", "delays.away_seconds=1")
    result = run(config)
    events, rows = events_of(result), result.history.to_pylist()
    assert [row["virtual_seconds"] for row in rows] == pytest.approx([0.4 * number for number in range(1, 13)])
    for event in events:
        assert 0.4 * event["round"] < event["arrived_seconds"] <= 0.4 * (event["round"] + 1)
    for row in rows:
        own = [event for event in events if event["round"] == row["round"]]
        delays = [event["staleness"] for event in own if event["status"] == "ok"]
        assert row["clients"] == len(delays)
        assert row["downlink_bytes"] == sum(event["downlink_bytes"] for event in own)
        assert row["staleness_max"] == max(delays, default=None)
        assert row["test_accuracy"] is not None
    empty = [row for row in rows if not row["clients"]]
    assert empty
    assert len(empty) < len(rows)
    assert all(row["update_norm"] == 0 and row["staleness_mean"] is None for row in empty)


def test_seconds_per_round_and_arrivals_per_round_are_the_same_run_cut_differently() -> None:
    by_time = run(inline("rounds=1", "delays.seconds_per_round=4.5"))
    arrivals = by_time.summary["arrivals"]
    by_count = run(inline("rounds=1", f"delays.arrivals_per_round={arrivals}"))
    assert by_time.summary["model_sha256"] == by_count.summary["model_sha256"]
    assert without_wall(by_time) == without_wall(by_count)


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


def test_who_drops_out_sends_nothing_and_changes_nothing() -> None:
    config = inline("delays.drop_rate=0.4", "delays.away_seconds=2.5", "rounds=6", *EQUAL_TIMES)
    result = run(config)
    events = events_of(result)
    lost = [event for event in events if event["status"] == "lost"]
    assert 5 < len(lost) < len(events) - 5
    assert result.summary["lost_updates"] == len(lost)
    for event in events:
        took = event["arrived_seconds"] - event["dispatched_seconds"]
        assert took == pytest.approx(3.5 if event["status"] == "lost" else 1.0)
    assert all(event["uplink_bytes"] == 0 < event["downlink_bytes"] or event["index"] for event in lost)
    clients = pq.read_table(result.directory / "clients.parquet").to_pylist()
    assert len(clients) == len(events) - len(lost) == 6 * 4


def test_a_freed_slot_goes_to_a_client_that_is_not_at_work_and_nobody_starves() -> None:
    config = inline("data.clients=9", "delays.concurrency=3", "delays.arrivals_per_round=60", "evaluation.every=9")
    result = run(config)
    events = events_of(result)
    assert {event["worker"] for event in events} == {0, 1, 2}
    for client in range(9):
        own = [event for event in events if event["client"] == client]
        for earlier, later in itertools.pairwise(own):
            assert earlier["arrived_seconds"] <= later["dispatched_seconds"]
    works = Counter(event["client"] for event in events)
    assert sorted(works) == list(range(9))
    assert min(works.values()) > 180 / 9 / 2
    for slot in range(3):
        own = [event["client"] for event in events if event["worker"] == slot]
        assert len(set(own)) == 9, "a slot belongs to nobody"
    again = sum(earlier == later for earlier, later in itertools.pairwise(own))
    assert 0 < again < len(own) / 2, "its last client may be drawn again, with one chance in seven"


def test_with_as_many_slots_as_clients_each_keeps_its_own() -> None:
    assert all(event["worker"] == event["client"] for event in events_of(run(inline())))


def test_a_hundred_times_slower_worker_holds_nobody_up() -> None:
    config = inline(
        "data.clients=64",
        "data.samples_per_client=16",
        *PERCEPTRON,
        "delays.slow_fraction=0.015625",
        "delays.slow_factor=100",
        "delays.drop_rate=0.1",
        "delays.away_seconds=1",
        "delays.arrivals_per_round=160",
        "rounds=4",
        "evaluation.every=9",
    )
    (slow,) = config.delays.slow_clients(config.seed, 64)
    result = run(config)
    accepted = Counter(event["client"] for event in events_of(result) if event["status"] == "ok")
    assert set(range(64)) - set(accepted) == {slow}
    assert min(accepted.values()) >= 2
    assert result.summary["arrivals"] == 640
    assert result.summary["virtual_seconds"] < 50


def test_inside_a_stretch_only_its_slice_travels_and_changes() -> None:
    """Each round of 12 arrivals begins with what two slots were given out before it, and catches up with that."""
    config = inline(*SEQUENTIAL, "data.clients=2", "delays.arrivals_per_round=12", "rounds=5")
    done = followed(config)
    problem, layout, before = done.problem, done.problem.layout, done.problem.vector
    statistics = 4 * layout.statistics_size
    for row, (vector, _) in zip(done.rows, done.models, strict=True):
        own = [arrival for arrival in done.arrivals if arrival.round == row.round]
        trained = set(layout.all_groups) if row.round < 2 else {row.round - 2, row.round - 1}
        for group in layout.all_groups:
            piece = layout.slices[group]
            assert np.array_equal(vector[piece], before[piece]) == (group not in trained), (row.round, group)
        before = vector
        if row.round == 0:
            continue
        assert [arrival.group for arrival in own[2:]] == [row.round - 1] * 10
        slice_bytes = 4 * layout.group_size(row.round - 1) + statistics
        assert all(arrival.uplink_bytes == slice_bytes for arrival in own[2:])
        assert all(arrival.downlink_bytes == slice_bytes for arrival in own[8:])
    assert row.round == problem.layout.groups


def test_a_method_that_sends_estimates_has_to_send_them() -> None:
    """What a worker trains is made for it; that it holds the server's parameters of that group is no help."""
    config = inline(*SEQUENTIAL, "rounds=5", "delays.arrivals_per_round=8", "algorithm=dana-zero")
    done = followed(config)
    layout = done.problem.layout
    for arrival in done.arrivals:
        trained = layout.all_groups if arrival.group == -1 else (arrival.group,)
        assert arrival.downlink_bytes >= 4 * (layout.count(trained) + layout.statistics_size)


def test_what_one_worker_is_charged_for_is_what_it_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a single client its host holds what the client holds: the payloads are the protocol's downloads."""
    from fedbench.engine.arrival_server import ArrivalServer

    sizes: list[int] = []
    send = ArrivalServer.send

    def watched(self: ArrivalServer, *arguments: Any) -> Any:
        payload = send(self, *arguments)
        sizes.append(payload.nbytes)
        return payload

    monkeypatch.setattr(ArrivalServer, "send", watched)
    for algorithm in ("ormo", "dana-zero", "smega2"):
        sizes.clear()
        one = ("data.clients=1", "evaluation.every=99", "delays.arrivals_per_round=3", f"algorithm={algorithm}")
        done = followed(inline(*SEQUENTIAL, "rounds=5", *one))
        assert [arrival.downlink_bytes for arrival in done.arrivals] == sizes, algorithm


def config_with(config: ExperimentConfig, *overrides: str) -> ExperimentConfig:
    """The same, changed."""
    from fedbench.merging import parse_overrides

    values = config.to_mapping()
    for text in overrides:
        for section, changes in parse_overrides([text]).items():
            values[section] = values[section] | changes
    return ExperimentConfig.from_mapping(values)


REPLAYED = {
    "virtual": (),
    "wall": ("delays.clock=wall",),
    "wall in lock-step": ("delays.clock=wall", "algorithm=ssgdm"),
    "lost works": ("delays.drop_rate=0.3", "delays.away_seconds=2", "delays.arrivals_per_round=7"),
    "more clients than slots": ("data.clients=6", "delays.concurrency=3", *SEQUENTIAL, "algorithm=dana-zero"),
    "seconds": ("delays.seconds_per_round=1.7", *SEQUENTIAL),
}


@pytest.mark.parametrize("name", REPLAYED)
def test_a_replay_is_the_run_again(name: str) -> None:
    config = inline(*REPLAYED[name])
    recorded = run(config)
    replayed = run(config_with(config, f"delays.replay={recorded.directory / 'events.parquet'}"))
    assert replayed.summary["model_sha256"] == recorded.summary["model_sha256"]
    assert without_wall(replayed) == without_wall(recorded)
    assert replayed.summary["config_hash"] == recorded.summary["config_hash"]
    for column in ("virtual_seconds", "test_accuracy", "staleness_mean", "downlink_bytes", "client_flops"):
        assert replayed.history[column].equals(recorded.history[column]), column


def test_works_done_one_after_the_other_arrive_in_the_order_they_were_given_out() -> None:
    events = events_of(run(inline("delays.clock=wall")))
    assert [event["worker"] for event in events] == [0, 1, 2, 3] * 3
    times = [event["arrived_seconds"] for event in events]
    assert times == sorted(set(times))
    assert 0 < times[0] < times[-1] < 60


def test_an_order_of_arrivals_can_be_followed_by_another_method() -> None:
    """What methods are compared on, when the clock is the wall's."""
    config = inline("delays.clock=wall")
    recorded = run(config)
    replay = f"delays.replay={recorded.directory / 'events.parquet'}"
    other = run(inline("delays.clock=wall", "algorithm=asgd", replay))
    assert [event["worker"] for event in events_of(other)] == [event["worker"] for event in events_of(recorded)]
    assert other.summary["model_sha256"] != recorded.summary["model_sha256"]


def test_a_log_that_does_not_fit_ends_the_run(run_folder: Path) -> None:
    recorded = run(inline("data.clients=6", "delays.concurrency=2"))
    replay = f"delays.replay={recorded.directory / 'events.parquet'}"
    with pytest.raises(
        ConfigError, match=r"^delays\.replay=.*worker \d has client \d there and \d here; replay it with"
    ):
        run(inline("data.clients=5", "delays.concurrency=2", replay))
    with pytest.raises(RunError, match=r"^delays\.replay=.*: ends before the run does; lower rounds"):
        run(inline("data.clients=6", "delays.concurrency=2", "rounds=4", replay))


def test_a_configuration_is_the_same_whether_it_is_replayed(tmp_path: Path) -> None:
    base = inline().digest()
    assert inline("delays.replay=somewhere/events.parquet").digest() == base
    changes = ("delays.distribution=constant", "delays.clock=wall", "delays.concurrency=3", "delays.work=delta")
    digests = {inline(change).digest() for change in changes} | {base}
    assert len(digests) == len(changes) + 1


def test_same_seed_same_run() -> None:
    config = inline("data.clients=6", "delays.concurrency=3", *SEQUENTIAL)
    first, second, other = followed(config), followed(config), followed(config_with(config, "seed=1"))
    assert first.digest == second.digest
    assert first.plain() == second.plain()
    assert first.digest != other.digest
    assert [one.worker for one in first.arrivals] != [one.worker for one in other.arrivals]
